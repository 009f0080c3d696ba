"""People in agents: tools that need approval, and a tool that asks a person."""

from llama_index_hitl.agents._agent_tool import agent_tool as agent_tool
