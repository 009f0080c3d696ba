from datetime import timedelta

import pytest
from desks import Desk, made, person

from llama_index_hitl import Approve, Edit, Reject, Respond, Revise
from llama_index_hitl.errors import InvalidAnswer, NotAllowed, RequestExpired
from llama_index_hitl.prebuilt import ApproveAction, ProposedAction, ResultStatus
from llama_index_hitl.rules import first_match, never, threshold
from llama_index_hitl.testing import review_with

DETAILS = {"order": "A1", "amount": 120, "note": "approved by manager: yes, approve"}


class Refunds(ApproveAction):
    """Remembers what it has refunded."""

    def __init__(self, paid=None, **options):
        super().__init__(**options)
        self.paid = [] if paid is None else paid

    async def execute(self, action, effect_key):
        self.paid.append((effect_key, action.details["amount"]))
        return {"refund": f"RF-{len(self.paid)}"}


async def refund(flow, *people, **details):
    handler = flow.run(action="Process refund", details={**DETAILS, **details})
    return await review_with(handler, *people)


async def test_what_is_approved_is_done_once():
    flow, erin = Refunds(), person(Approve())
    result = await refund(flow, erin)
    assert (result.status, result.output) == (ResultStatus.APPROVED, {"refund": "RF-1"})
    assert result.subject == ProposedAction(name="Process refund", details=DETAILS)
    assert flow.paid == [(erin.asked[0].request_id, 120)]
    assert erin.asked[0].title == "Approval required: Process refund"
    assert made(result) == [("erin", "approve")]


async def test_what_is_rejected_is_not_done():
    flow = Refunds()
    result = await refund(flow, person(Reject(comment="no")))
    assert (result.status, result.output, flow.paid) == (ResultStatus.REJECTED, None, [])


async def test_rules_on_the_details_say_when_a_person_is_needed():
    policy = first_match(threshold("details.amount", above=100), otherwise=never())
    flow, erin = Refunds(policy=policy), person(Reject())
    assert (await refund(flow, erin, amount=100)).status is ResultStatus.APPROVED
    assert erin.asked == []
    assert (await refund(flow, erin, amount=101)).status is ResultStatus.REJECTED
    assert (await refund(flow, person(Reject()), amount="1")).status is ResultStatus.REJECTED
    assert [amount for _, amount in flow.paid] == [100]


async def test_an_action_without_code_does_nothing():
    result = await review_with(ApproveAction().run(action="Nothing"), person(Approve()))
    assert (result.status, result.output) == (ResultStatus.APPROVED, None)


# --- in a store ---------------------------------------------------------------------------------


def stored(paid, **options):
    return lambda clock: Refunds(paid, clock=clock, reviewers="erin", **options)


async def test_it_is_done_once_in_another_process(tmp_path):
    paid = []
    desk = Desk(tmp_path, stored(paid))
    request = await desk.start(action="Process refund", details=DETAILS)
    assert (paid, request.subject.data["details"]) == ([], DETAILS)
    assert await desk.answer(Approve()) is None
    assert (await desk.result()).output == {"refund": "RF-1"}
    assert paid == [(request.request_id, 120)]
    assert await desk.effects() == [
        (request.request_id, "effect_begun"),
        (request.request_id, "effect_done"),
    ]


NO_ANSWERS = [
    Revise(feedback="approve"),
    Respond(response="approve"),
    Edit(subject={"name": "Process refund", "details": {**DETAILS, "amount": 1}}),
]


async def test_only_yes_and_no_are_answers(tmp_path):
    paid = []
    desk = Desk(tmp_path, stored(paid))
    await desk.start(action="Process refund", details=DETAILS)
    for decision in NO_ANSWERS:
        with pytest.raises(InvalidAnswer):
            await desk.answer(decision)
    with pytest.raises(NotAllowed):
        await desk.answer(Approve(), by="mallory")
    assert await desk.open() is not None
    assert paid == []


async def test_silence_is_no_approval(tmp_path):
    paid = []
    desk = Desk(tmp_path, stored(paid, deadline=timedelta(hours=2)))
    await desk.start(action="Process refund", details=DETAILS)
    desk.clock.advance(hours=2)
    with pytest.raises(RequestExpired):
        await desk.answer(Approve())
    assert await desk.after() is None
    assert ((await desk.result()).status, paid) == (ResultStatus.EXPIRED, [])


async def test_without_a_clock_of_its_own_it_goes_by_that_of_the_runner(tmp_path):
    desk = Desk(tmp_path, lambda _: Refunds([], reviewers="erin", deadline=timedelta(hours=2)))
    request = await desk.start(action="Process refund", details=DETAILS)
    assert request.created_at == desk.clock()
    assert await desk.after(hours=2) is None
