"""The web inbox: people answer in the browser, live; programs over HTTP.

- `create_app`: the application, for a server of its own or mounted into yours;
- `NamedTokens`: built-in sign-in, with tokens that are kept hashed; `Authenticate`: your own;
- `Visibility`: who sees what, and which fields of it;
- `AnswerLinks`: signed links for mail and chat that lead to one answer of one person;
- `llama_index_hitl.web.serving`: serves it, for as long as the process or a block of code lasts.
"""

from llama_index_hitl.web.app import create_app
from llama_index_hitl.web.limits import Limits
from llama_index_hitl.web.links import AnswerLinks
from llama_index_hitl.web.people import Authenticate
from llama_index_hitl.web.tokens import NamedTokens
from llama_index_hitl.web.visibility import Visibility

__all__ = ["AnswerLinks", "Authenticate", "Limits", "NamedTokens", "Visibility", "create_app"]
