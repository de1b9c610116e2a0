"""What the elements of an array have used, as if each GPU of one were that GPU of all. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Sequence

if TYPE_CHECKING:
    from .status import AskedFor, Status
    from .usage import GpuUsage, Seconds, Usage


def usage_of_elements(elements: Sequence[Status]) -> Usage:
    """
    Return what the elements have used together: sums, highest values, and means over the time that each has run.

    Means are over the elements that were measured.
    """
    usages = [(one["usage"], one.get("seconds", {}).get("running", 0.0)) for one in elements if one.get("usage")]
    if not usages:
        return {}
    found: Usage = {
        "source": next((usage["source"] for usage, _ in usages if usage.get("source")), ""),
        "samples": sum(usage.get("samples", 0) for usage, _ in usages),
    }
    means = [(usage["gpu_mean_percent"], ran_s) for usage, ran_s in usages if "gpu_mean_percent" in usage]
    if means:
        found["gpu_mean_percent"] = _mean(means)
        found["gpu_peak_percent"] = max(usage.get("gpu_peak_percent", 0.0) for usage, _ in usages)
        found["gpu_seconds_used"] = sum(usage.get("gpu_seconds_used", 0.0) for usage, _ in usages)
        found["gpu_seconds_idle"] = sum(usage.get("gpu_seconds_idle", 0.0) for usage, _ in usages)
    if any("energy_j" in usage for usage, _ in usages):
        found["energy_j"] = sum(usage.get("energy_j", 0.0) for usage, _ in usages)
    busy = [(usage["cpus_mean"], ran_s) for usage, ran_s in usages if "cpus_mean" in usage]
    if busy:
        found["cpus_mean"] = _mean(busy)
        found["cpus"] = max(usage.get("cpus", 0) for usage, _ in usages)
    gpus = [(usage["gpus"], ran_s) for usage, ran_s in usages if usage.get("gpus")]
    if gpus and len({len(of_one) for of_one, _ in gpus}) == 1:
        found["gpus"] = [
            _one_gpu([(of_one[place], ran_s) for of_one, ran_s in gpus]) for place in range(len(gpus[0][0]))
        ]
    return found


def longest_seconds(elements: Sequence[Status]) -> Seconds:
    """Return how long each part took in the element in which it took longest."""
    found: Seconds = {}
    for element in elements:
        of_one = element.get("seconds", {})
        for name in ("queued", "staging", "building", "running", "idle"):
            if name in of_one:
                found[name] = max(found.get(name, 0.0), of_one[name])
    return found


def asked_by_elements(elements: Sequence[Status]) -> AskedFor:
    """Return what every element has asked for; nothing when they differ."""
    asked = [one.get("asked", {}) for one in elements]
    return asked[0] if asked and all(one == asked[0] for one in asked) else {}


def _one_gpu(of_elements: list[tuple[GpuUsage, float]]) -> GpuUsage:
    found: GpuUsage = {}
    means = [(gpu["mean_percent"], ran_s) for gpu, ran_s in of_elements if "mean_percent" in gpu]
    if len(means) == len(of_elements):
        found["mean_percent"] = _mean(means)
        found["peak_percent"] = max(gpu.get("peak_percent", 0.0) for gpu, _ in of_elements)
    for name in ("peak_memory_bytes", "memory_bytes"):
        known = [gpu[name] for gpu, _ in of_elements if name in gpu]
        if len(known) == len(of_elements):
            found[name] = max(known)
    return found


def _mean(values: list[tuple[float, float]]) -> float:
    """Return the mean of some values, each with its weight."""
    weight = sum(weight for _, weight in values)
    if not weight:
        return sum(value for value, _ in values) / len(values)
    return sum(value * one for value, one in values) / weight
