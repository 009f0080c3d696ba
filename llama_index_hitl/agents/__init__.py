"""People in agents: tools that need approval, and a tool that asks a person.

    agent = FunctionAgent(
        tools=[get_balance, require_approval(transfer), human_tool()],
        llm=llm,
    )
    result = await review_in_console(agent.run(user_msg="Pay Alice 500."))

- `require_approval`: guards any tool or function of LlamaIndex: the agent's call waits until a
  person, a rule or a standing approval lets it;
- `human_tool`: lets an agent ask a person, who answers in a form;
- `agent_tool`: hands a task to another agent, whose questions come up.

They work in `FunctionAgent`, `ReActAgent`, `AgentWorkflow` and for what a `CodeActAgent` executes,
and in steps of your own.
"""

from llama_index_hitl.agents._agent_tool import agent_tool
from llama_index_hitl.agents._approval import require_approval
from llama_index_hitl.agents._guarded_tool import GuardedTool, ToolResponse
from llama_index_hitl.agents._human_tool import HumanAnswer, human_tool

__all__ = [
    "GuardedTool",
    "HumanAnswer",
    "ToolResponse",
    "agent_tool",
    "human_tool",
    "require_approval",
]
