"""People in agents: tools that need approval, and a tool that asks a person."""
