"""What people write and models propose, as HTML that can do nothing: for pages and notebooks."""
