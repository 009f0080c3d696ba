"""An agent as a tool of another agent."""

from typing import Any

from llama_index.core.tools import FunctionTool
from llama_index.core.workflow import Context
from workflows import Workflow

from llama_index_hitl._upstream import fail_step
from llama_index_hitl.children import run_child
from llama_index_hitl.errors import ChildError, HitlError


def agent_tool(
    agent: Workflow,
    *,
    name: str | None = None,
    description: str | None = None,
    takes: str = "user_msg",
) -> FunctionTool:
    """Return a tool by which an agent hands a task to another agent, or to any workflow.

    What the inner agent asks people, in its tools say, is asked by the outer one: on its stream and
    among its open requests, with the path that leads there. Both are paused and resumed as one, as
    `run_child` describes. Each call is a conversation of its own, without memory of earlier calls.

    The model is told what the inner agent says in the end, and also if it fails; but a run that
    cannot be gone on with, because its code has changed for example, fails the outer run.

    Args:
        agent: The inner agent, an `AgentWorkflow`, or another workflow.
        name: Name of the tool; by default that of the agent.
        description: When to use it, for the model; by default what the agent says of itself.
        takes: What of `agent.run` the task is given as.

    Returns:
        A tool for agents that run as workflows, such as FunctionAgent and AgentWorkflow.

    Raises:
        ChildError: There is no name, or no description.

    Example:
        >>> from llama_index.core.agent.workflow import FunctionAgent
        >>> from llama_index_hitl.testing import ScriptedLLM
        >>> researcher = FunctionAgent(
        ...     name="researcher",
        ...     description="Finds things out.",
        ...     tools=[human_tool()],
        ...     llm=ScriptedLLM(["Mice are small."]),
        ... )
        >>> tool = agent_tool(researcher)  # for the tools of another agent
        >>> tool.metadata.name, tool.metadata.description
        ('researcher', 'Finds things out.')
    """
    named = name or getattr(agent, "name", None)
    described = description or getattr(agent, "description", None)
    if not (isinstance(named, str) and isinstance(described, str)):
        raise ChildError(f"agent_tool needs name= and description= for {type(agent).__name__}.")

    async def hand_over(ctx: Context, task: str) -> str:
        try:
            result: Any = await run_child(ctx, agent, **{takes: task})
        except HitlError as error:
            fail_step(error)  # else the agent would turn it into words for the model
        return str(result)

    return FunctionTool.from_defaults(async_fn=hand_over, name=named, description=described)
