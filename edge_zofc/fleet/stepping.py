"""A fleet's steps: many devices measure one step, the fleet moves the adapter, and then judges what came of it.

Devices that have the fleet's head measure each step on pictures of their own. What came in time is bounded and put
together (``algorithm/aggregation.py``), journalled, and only then told, with the next step. So a server that died goes
on where it was. A step that too few devices measured is not taken. A late reply is known by its nonce, and counts
nothing. ``judging.py`` says what becomes of the adapter after the last step.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from edge_zofc.algorithm.adapter import lattice_eps
from edge_zofc.algorithm.aggregation import Aggregate, aggregated, bounded
from edge_zofc.algorithm.crowding import LIMIT, crowding_of
from edge_zofc.algorithm.directions import GRADIENT, SCHEMES
from edge_zofc.algorithm.options import Options, make_options
from edge_zofc.errors import DamagedFileError, EdgeZofcError, InputError, printable
from edge_zofc.fleet.coordinator import Coordinator, Exchange
from edge_zofc.fleet.exchange import MOST_REASON, MOST_VALUE, Measure, Measured, opened, sealed
from edge_zofc.fleet.judging import Judge
from edge_zofc.storage.fleet_journal import FleetJournal
from edge_zofc.storage.journal import Header, Kind, Record

Estimator = Literal["spsa", "exact"]


@dataclass(frozen=True)
class Plan:
    """``steps`` in all, each of at most ``sample`` devices with ``pictures`` each, which have ``deadline`` seconds.

    A step ends when a fraction ``close_at`` of those that were asked answered, and is taken where ``quorum`` did.
    ``adapter`` "on": the steps are taken however far apart the classes stand.
    """

    steps: int = 0
    estimator: Estimator = "spsa"
    sample: int = 256
    pictures: int = 16
    deadline: float = 30.0
    close_at: float = 1.0
    quorum: float = 0.5
    aggregate: Aggregate = "trimmed"
    adapter: Literal["auto", "on"] = "auto"


class Steps:
    """The steps of a fleet. Raises InputError where its bundle or its limits allow none."""

    def __init__(self, coordinator: Coordinator, plan: Plan) -> None:
        self.fleet, self.plan = coordinator, plan
        self._judge: Judge | None = None
        self._crowding: tuple[int, float] | None = None
        about = coordinator.fleet.about()
        if self.are_due and about.cap is not None:
            raise InputError(
                f"The fleet counts a device as at most {about.cap:g} times the median's pictures, and then held-out "
                "pictures cannot be taken out of its head; give --cap 0 with --steps."
            )
        if self.are_due and plan.estimator == "exact" and not coordinator.bundle.manifest.goes_back:
            raise InputError(
                "The bundle has no graph for exact gradients that this version reads; give --estimator spsa."
            )

    @property
    def are_due(self) -> bool:
        """Whether there is a step to take, or something to judge."""
        journal = self.fleet.journal
        return self.plan.steps > 0 and (journal is None or not journal.is_over)

    @property
    def are_left(self) -> bool:
        """Whether there is a step to take."""
        journal = self.fleet.journal
        return self.are_due and (journal is None or journal.steps < self.plan.steps)

    @property
    def options(self) -> Options:
        """Those of a run that would take such steps."""
        return make_options("edge", {"estimator": self.plan.estimator})

    def win_little(self) -> bool:
        """Whether no step is begun, as the classes of the newest head stand far apart; told once for each head.

        Steps that have begun go on.
        """
        fleet, head = self.fleet, self.fleet.ledger.devices.head
        has_begun = fleet.journal is not None and fleet.journal.steps > 0
        if self.plan.adapter == "on" or not self.are_left or has_begun or not fleet.fleet.names(fleet.fleet.about()):
            return False
        if self._crowding is None or self._crowding[0] != head:
            found = crowding_of(fleet.fleet.merged().statistics)
            self._crowding = head, found
            if found < LIMIT:
                fleet.log("steps_not_begun", head=head, crowding=found)
                fleet.tell(
                    f"no step is taken: the classes of all devices stand far apart, a class and the one most like it "
                    f"are {found:.2f} alike. Below {LIMIT:.2f} the adapter wins little; --adapter on moves it all the "
                    "same."
                )
        return self._crowding[1] < LIMIT

    def begin(self) -> FleetJournal:
        """The fleet's journal, begun if need be. Raises as ``Journal.create``."""
        fleet, options = self.fleet, self.options
        if fleet.journal is None:
            header = Header(
                secrets.randbits(63),
                fleet.bundle.identity,
                fleet.bundle.manifest.adapter.size,
                lattice_eps(options.eps),
                options.momentum,
                0 if self.plan.estimator == "exact" else options.queries,
                GRADIENT if self.plan.estimator == "exact" else SCHEMES[options.directions],
                options.optimizer,
                rests=True,
            )
            fleet.journal = FleetJournal.begin(fleet.folder, header)
        if not fleet.journal.records:
            fleet.journal.append(Record(Kind.TASK_START, 0, 0))
        return fleet.journal

    def step(self, present: Iterable[str], exchange: Exchange) -> bool:
        """Take the next step with devices that are there; returns whether enough of them measured it."""
        journal, fleet, plan = self.begin(), self.fleet, self.plan
        number, asked = journal.steps, self._asked(present)
        messages = {name: self._measure(name) for name in asked}
        found: dict[str, Measured] = {}
        values: dict[str, np.ndarray] = {}
        for name, raw in exchange(messages, plan.deadline) if messages else ():
            reply = self._read(name, raw)
            if reply is not None:
                found[name], values[name] = reply
                if len(values) >= plan.close_at * len(asked):
                    break
        enough = bool(values) and len(values) >= plan.quorum * len(asked)
        silent = sorted(set(asked) - set(values))
        facts = {"number": number, "taken": enough, "answered": sorted(values), "silent": silent}
        if enough:
            rows = np.stack([values[name] for name in sorted(values)])
            within = bounded(rows, journal.header.is_dense)
            applied = aggregated(within, plan.aggregate)
            journal.append(self._record(number, applied))  # before anybody hears of it
            facts |= {
                "loss": float(np.mean([one.loss for one in found.values()])),
                "pictures": sum(one.pictures for one in found.values()),
                "bounded": sorted(n for n, a, b in zip(sorted(values), rows, within, strict=True) if (a != b).any()),
                "norm": float(np.sqrt(np.sum(np.square(applied, dtype=np.float64)))),
            }
        fleet.log("step", **facts)
        loss = f", loss {facts['loss']:.3f}" if enough else "; too few, so it is not taken"
        fleet.tell(f"step {number}: {len(values)} of {len(asked)} devices measured{loss}")
        return enough

    def judge(self, present: Iterable[str], exchange: Exchange, deadline: float) -> bool:
        """See ``Judge.judge``, of steps that are all taken."""
        if self._judge is None:
            self._judge = Judge(self.fleet, self.begin(), self.plan.quorum)
        return self._judge.judge(present, exchange, deadline)

    def _asked(self, present: Iterable[str]) -> list[str]:
        """Devices that have a head of the fleet, a sample of them that changes with the step."""
        fleet, known = self.fleet, self.fleet.ledger.known
        names = sorted(n for n in fleet.ledger.asked(present) if n in known and known[n].head)
        if fleet.journal is None or len(names) <= self.plan.sample:
            return names
        draw = np.random.default_rng([fleet.journal.header.seed, fleet.journal.steps])
        return sorted(names[i] for i in draw.choice(len(names), self.plan.sample, replace=False))

    def _measure(self, name: str) -> bytes:
        facts, body = self.fleet.piece(name)
        step = 0 if self.fleet.journal is None else self.fleet.journal.steps
        ask = Measure(**facts, step=step, pictures=self.plan.pictures, seconds=self.plan.deadline)
        return self.fleet.ledger.sent(name, sealed(ask, body))

    def _read(self, name: str, raw: bytes) -> tuple[Measured, np.ndarray] | None:
        """What a device measured, float64 [n]; None where that is nothing, late or a strike."""
        fleet, ledger, journal = self.fleet, self.fleet.ledger, self.begin()
        ledger.got(name, raw)
        try:
            if fleet.lacks(name, raw):
                return None
            reply, body = opened(raw, Measured)
            if ledger.is_late(name, reply.nonce):
                fleet.tell(f"{name}: a late reply for step {reply.step} counts nothing")
                return None
            size = 4 * (journal.header.adapter_size if journal.header.is_dense else journal.header.queries)
            if len(body) != (size if reply.state == "measured" else 0) or reply.step != journal.steps:
                raise DamagedFileError(f"The reply for step {reply.step} has a body of {len(body)} bytes.")
            values = np.frombuffer(body, "<f4").astype(np.float64)
            if not (np.abs(values) <= MOST_VALUE).all():  # so that NaN fails
                raise DamagedFileError(f"The reply for step {reply.step} has values beyond {MOST_VALUE:g}.")
        except EdgeZofcError as error:
            ledger.strike(name, str(error))
            return None
        ledger.forgive(name)
        if reply.state == "nothing":
            ledger.note(name, told=reply.reason)
            fleet.tell(f"{name}: {printable(reply.reason, MOST_REASON)}")
            return None
        return reply, values

    def _record(self, number: int, applied: np.ndarray) -> Record:
        rate = self.options.adapter_lr
        if self.begin().header.is_dense:
            return Record(Kind.STEP, 0, number, rate, gradient=applied)
        return Record(Kind.STEP, 0, number, rate, tuple(map(float, applied)))
