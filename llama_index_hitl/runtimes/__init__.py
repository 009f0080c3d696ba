"""Gates and `ask` on upstream's other runtimes. Each module needs an extra of its own.

- `runtimes.server`: `ReviewServer`, a WorkflowServer of llama-agents-server. Extra: `server`.
- `runtimes.dbos`: what llama-agents-dbos needs to run behind it. Extra: `dbos`.
"""
