"""What a set of rules would have decided about requests that people have decided."""
