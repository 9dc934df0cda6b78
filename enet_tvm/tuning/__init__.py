"""Measuring kernels at many points of their templates, and remembering which was the fastest.

`log` is what `compile` reads; the rest makes it: `tasks` (what there is to tune), `measure` (MetaSchedule's builder and
runners), `records` (its database), `model` (its cost model), `generic` (its own schedule rules, for functions that no
template made), `session` (all of it, so that it can be interrupted), `network` (the whole, before and after).
"""
