"""
Jobs that exist on paper only: what would be seen of each at any moment, for :class:`.IdleWatch`.

A look sees what a driver tells: the mean over the last seconds, at a moment that the sampler's jitter decides. NVML
keeps its own samples for about twenty seconds; ``nvidia-smi`` tells only of the last one.
"""

from __future__ import annotations

import bisect
import math
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from airflow_provider_gpu_cluster.gpu_run.protocol.idle_policy import WHOLE, IdlePolicy
from airflow_provider_gpu_cluster.gpu_run.supervise.idle import IdleWatch, JobLook

HOUR_S, MINUTE_S = 3600.0, 60.0
NVML_S, NVIDIA_SMI_S = 20.0, 1.0
JITTER = 0.3
GIB = 1 << 30
MIB = 1 << 20


class Bursts:
    """
    When a GPU computes, and how hard.

    :param bursts: begin, end and use in percent of each, in their order.
    """

    def __init__(self, bursts: Sequence[tuple[float, float, float]]) -> None:
        self._bursts = bursts
        self._begins = [begin for begin, _, _ in bursts]

    def __call__(self, now: float, past_s: float) -> float:
        """Return the use in the last seconds, in the mean."""
        since = now - past_s
        first = max(0, bisect.bisect_right(self._begins, since) - 1)
        used = 0.0
        for begin, end, percent in self._bursts[first : bisect.bisect_right(self._begins, now)]:
            used += percent * max(0.0, min(end, now) - max(begin, since))
        return used / past_s


Use = Callable[[float, float], "float | None"]


@dataclass
class ScriptedJob:
    """
    A job.

    :param uses: the use of each of its GPUs until a moment, over so many seconds, in percent; None when it is not
        measured.
    :param memory: the memory in use on each GPU at a moment, in bytes.
    :param reports: when it reports progress.
    :param saves: when it saves a file.
    :param stopped: from when to when it is stopped.
    :param missed: from when to when nobody looks.
    """

    name: str
    uses: Sequence[Use]
    hours: float = 24.0
    memory: Callable[[float], int] = lambda now: 30 * GIB
    reports: Sequence[float] = ()
    saves: Sequence[float] = ()
    stopped: tuple[float, float] = (0.0, 0.0)
    missed: tuple[float, float] = (0.0, 0.0)
    #: The looks at which it was idle, with their levels.
    told: list[tuple[float, str]] = field(default_factory=list)

    def look(self, now: float, past_s: float) -> JobLook:
        """Return what is seen at a moment, by a driver that tells of so many seconds."""
        return JobLook(
            [use(now, past_s) for use in self.uses],
            [self.memory(now)] * len(self.uses),
            bisect.bisect_right(self.reports, now),
            self.stopped[0] <= now < self.stopped[1],
        )

    def stopped_at(self, policy: IdlePolicy, *, driver_s: float = NVML_S, seed: int = 0) -> float | None:
        """
        Return when the policy ends it, in seconds after its start; None when it lets it run to its end.

        :param driver_s: of how many seconds the driver tells at most.
        :param seed: of the sampler's jitter.
        """
        chance, now = random.Random(seed), 0.0
        watch = IdleWatch(policy, saved_ago_s=lambda: self._saved_ago_s(now), now=0.0, clock=lambda: now)
        self.told.clear()
        while True:
            pause_s = watch.pause_s * chance.uniform(1 - JITTER, 1 + JITTER)
            now += pause_s
            if now >= self.hours * HOUR_S:
                return None
            if self.missed[0] <= now < self.missed[1]:
                continue
            note = watch.look(self.look(now, min(pause_s, driver_s)), now)
            if note is not None and (not self.told or self.told[-1][1] != note["level"]):
                self.told.append((now, note["level"]))
            if note is not None and note["level"] == WHOLE:
                return now

    def _saved_ago_s(self, now: float) -> float:
        before = bisect.bisect_right(self.saves, now)
        return now - self.saves[before - 1] if before else math.inf


def every(first: float, pause: float, hours: float) -> list[float]:
    """Return moments at equal distances."""
    return [first + pause * number for number in range(max(0, math.ceil((hours * HOUR_S - first) / pause)))]


def steady(percent: float) -> Use:
    """Return the use of a GPU that is always used alike."""
    return lambda now, past_s: percent


def noisy(chance: random.Random, low: float, high: float) -> Use:
    """Return a use that a driver tells as another whole number each time."""
    return lambda now, past_s: float(round(chance.uniform(low, high)))


def in_turn(
    periods: Iterator[tuple[float, float]], hours: float, *, first: float = 0.0, works_at: float = 90.0
) -> Bursts:
    """
    Return the use of a GPU that computes, and waits, in turn.

    :param periods: for how long it computes, and then waits.
    :param works_at: its use while it computes, in percent.
    """
    bursts, now = [], first
    while now < hours * HOUR_S:
        works, waits = next(periods)
        bursts.append((now, now + works, works_at))
        now += works + waits
    return Bursts(bursts)


def alike(works: float, waits: float) -> Iterator[tuple[float, float]]:
    """Return the same period again and again."""
    while True:
        yield works, waits


def by_chance(
    chance: random.Random, works: tuple[float, float], waits: tuple[float, float]
) -> Iterator[tuple[float, float]]:
    """Return periods of any length between these."""
    while True:
        yield chance.uniform(*works), chance.uniform(*waits)


def requests(chance: random.Random, works_s: float, share: float) -> Iterator[tuple[float, float]]:
    """Return the work of a server whose requests come at any time, and take so large a share of it."""
    while True:
        yield works_s, chance.expovariate(share / (works_s * (1 - share)))


def busy_jobs(seed: int, hours: float = 24.0) -> list[ScriptedJob]:
    """Return one job of each shape that looks idle at times and is not."""
    chance = random.Random(seed)
    loads = chance.uniform(20, 55) * MINUTE_S
    paused = every(chance.uniform(1, 2) * HOUR_S, 1.5 * HOUR_S, hours)
    pause = chance.uniform(5, 20) * MINUTE_S

    def small_with_pauses(now: float, past_s: float) -> float:
        is_paused = any(begin <= now < begin + pause for begin in paused)
        return 0.0 if is_paused else float(round(chance.uniform(4, 12)))

    def turns(number: int) -> Bursts:
        return in_turn(alike(20.0, 7 * 20.0), hours, first=number * 20.0)

    dead = chance.uniform(0.5, 3) * HOUR_S
    return [
        ScriptedJob("loads its data for half an hour and more", [Bursts([(loads, 1e9, 90.0)])], hours),
        ScriptedJob(
            "pauses to save",
            [in_turn(by_chance(chance, (1800, 7200), (120, 900)), hours)],
            hours,
            saves=every(900, 1200, hours),
        ),
        ScriptedJob("evaluates on processors, 20 min of an hour", [in_turn(alike(2400, 1200), hours)], hours),
        ScriptedJob(
            "evaluates on processors, up to 29 min", [in_turn(by_chance(chance, (60, 1800), (600, 1740)), hours)], hours
        ),
        ScriptedJob("small model, at 6 to 10 %", [noisy(chance, 4, 12)], hours),
        ScriptedJob("small model, with pauses", [small_with_pauses], hours),
        ScriptedJob("small model, in bursts", [in_turn(requests(chance, 1.0, 0.08), hours)], hours),
        ScriptedJob("server with few requests", [in_turn(requests(chance, 3.0, 0.07), hours)], hours),
        ScriptedJob("server that answers once a minute", [in_turn(alike(4.0, 56.0), hours)], hours),
        ScriptedJob("bound by memory", [noisy(chance, 10, 25)], hours),
        ScriptedJob("pipeline over 8 GPUs", [turns(number) for number in range(8)], hours),
        ScriptedJob("8 GPUs of which one computes", [steady(98.0)] + [steady(0.0)] * 7, hours),
        ScriptedJob("32 GPUs of which one computes", [noisy(chance, 60, 100)] + [steady(0.0)] * 31, hours),
        ScriptedJob("waits for its data, at 7 %", [in_turn(alike(0.78, 9.22), hours)], hours),
        ScriptedJob("GPU memory grows slowly", [steady(0.0)], hours, memory=lambda now: GIB + int(now / 60 * MIB)),
        ScriptedJob("a MIG instance", [steady(0.0), lambda now, past_s: None], hours),
        ScriptedJob("its driver dies", [lambda now, past_s: 80.0 if now < dead else None], hours),
        ScriptedJob("learns after simulations", [in_turn(by_chance(chance, (60, 240), (300, 1700)), hours)], hours),
        ScriptedJob(
            "search, each trial loads first", [in_turn(by_chance(chance, (120, 600), (60, 400)), hours)], hours
        ),
        ScriptedJob("reports progress only", [steady(0.0)], hours, reports=every(600, chance.uniform(60, 1500), hours)),
        ScriptedJob("saves files only", [steady(0.0)], hours, saves=every(600, chance.uniform(60, 1500), hours)),
        ScriptedJob("is stopped", [Bursts([(0, HOUR_S, 80.0)])], 9.0, stopped=(HOUR_S, 8.8 * HOUR_S)),
        ScriptedJob("nobody looks for hours", [Bursts([(0, HOUR_S, 80.0)])], 9.0, missed=(HOUR_S, 8.8 * HOUR_S)),
        ScriptedJob("merges its results at the end", [Bursts([(0, 4 * HOUR_S, 85.0)])], 4.0 + chance.uniform(0, 0.48)),
        ScriptedJob("notebook of somebody at work", [in_turn(by_chance(chance, (20, 300), (60, 1500)), hours)], hours),
    ]


def idle_jobs(seed: int) -> list[tuple[ScriptedJob, float]]:
    """Return jobs that are idle, and from when they are."""
    chance = random.Random(seed)
    dead = chance.uniform(1, 3) * HOUR_S
    return [
        (ScriptedJob("never touches its GPU", [steady(0.0)], memory=lambda now: 0), 0.0),
        (ScriptedJob("hangs after hours", [Bursts([(0, dead, 95.0)])]), dead),
        (
            ScriptedJob("small model that hangs", [lambda now, past_s: chance.uniform(6, 10) if now < dead else 0.0]),
            dead,
        ),
        (ScriptedJob("hardly uses it", [noisy(chance, 0, 3)]), 0.0),
        (ScriptedJob("8 GPUs, all idle", [noisy(chance, 0, 1)] * 8), 0.0),
        (ScriptedJob("notebook that was left", [Bursts([(300, 600, 60.0), (3000, 3600, 90.0)])]), 3600.0),
        (ScriptedJob("saves once and hangs", [Bursts([(0, dead, 95.0)])], saves=[dead + 1200]), dead + 1200),
        (ScriptedJob("memory trembles", [steady(0.0)], memory=lambda now: GIB + chance.choice((0, 2 * MIB))), 0.0),
    ]
