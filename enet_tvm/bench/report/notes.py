"""Notes beside the tables of a comparison, in sentences."""

from __future__ import annotations

import re

from enet_tvm.bench.report.figures import Figures


def notes(result: Figures) -> list[str]:
    """Return the notes beside the tables: what each runner is, which runners are missing, what machine they ran on."""
    lines = []
    for entry in result["entries"]:
        lines.append(f"{entry['name']}: {entry['description']}; ready in {entry['ready_seconds']:.0f} s")
        if entry.get("device"):
            lines.append(f"{entry['name']} runs on {_machine(entry['device'])}; {_state(entry['device'])}")
            if (entry.get("footprint") or {}).get("memory_bytes"):
                lines.append(f"{entry['name']}: memory is that of its whole process there, libraries included")
    lines += [f"{name} is missing: {reason}" for name, reason in result["missing"].items()]
    lines.append(f"host: {_machine(result['machine'])}; {_state(result['machine'])}")
    lines.append(_made_of(result))
    footprints = [entry["footprint"] for entry in result["entries"] if entry.get("footprint")]
    if footprints and not any(footprint["energy"] for footprint in footprints):
        lines.append("no energy: the machine does not say what power it takes")
    lines += result.get("not_measured", ())
    return lines


def _machine(machine: Figures) -> str:
    """Return a machine in words; older files know the processor alone."""
    memory = machine.get("memory_bytes")
    parts = [
        machine.get("board"),
        machine.get("processor"),
        machine.get("usable") or (f"{machine['processors']} processors" if machine.get("processors") else ""),
        *machine.get("gpus", ()),
        f"{memory / 2**30:.1f} GiB" if memory else "",
        machine.get("system"),
        f"governor {machine['governor']}" if machine.get("governor") else "",
    ]
    return ", ".join(part for part in parts if part) or "a machine that does not say what it is"


def _state(machine: Figures) -> str:
    texts = []
    for moment in ("before", "after"):
        state = machine.get(moment, {})
        clocks, heat = state.get("mhz", {}), state.get("celsius", {})
        if clocks or heat:
            # Processors differ little; a GPU has a clock of its own.
            processors = [mhz for name, mhz in clocks.items() if re.fullmatch(r"cpu\d+", name)]
            words = [f"{min(processors):.0f} MHz"] if processors else []
            words += [f"{name} {mhz:.0f} MHz" for name, mhz in clocks.items() if not re.fullmatch(r"cpu\d+", name)]
            words += [f"{max(heat.values()):.0f} °C"] if heat else []
            *others, last = words
            texts.append(f"{', '.join(others)} and {last} {moment}" if others else f"{last} {moment}")
    return ", ".join(texts) or "it tells neither clocks nor temperatures"


def _made_of(result: Figures) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in result["versions"].items())
    weights = result.get("weights", {})
    return f"weights {weights.get('sha256', 'unknown')[:12]}, target {result['target']}, {versions}"
