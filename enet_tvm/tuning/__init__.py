"""Measuring kernels at many points of their templates, and remembering which was the fastest.

The log is defined in `enet_tvm.compiler.tuning_log`, which `compile` reads. `session` leads from the untuned
network to the log, by way of

- `baseline` and `tasks`: the kernels that can be tuned, and their times untuned;
- `store` and `records`: measurements kept on disk, so that a session can be interrupted (MetaSchedule's database);
- `budget`: how many trials, in what time;
- `trials` and `measure`: building and timing kernels (MetaSchedule's builder and runners);
- `search`, `cost_model` and `generic`: which trial is next (MetaSchedule's cost model, and its own schedule rules for functions
  that no template made);
- `contest`: the best of each kernel against its default, in turns;
- `judge` and `network`: the whole network, before and after.
"""
