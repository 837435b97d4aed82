"""Pure scoring: from recorded runs to targets, times, scores, and what can be concluded from them.

* Targets and times: ``targets``, ``fixed_targets``, ``reference_targets``, ``evaluations``,
  ``conditions``, ``machines``.
* The race's score: ``scoring``, ``ranks``; AlgoPerf's own rules: ``algoperf``.
* Aggregates without a floor: ``aggregates`` (from ``curves``, ``normalised``, ``levels``,
  ``interquartile``); final metrics: ``final_quality``.
* How sure: ``uncertainty`` (intervals), ``coverage`` (their true coverage), ``multiple`` (several
  comparisons at once), ``null_test`` (gaps by chance), ``sensitivity`` (other targets and limits).
* Tuning: ``hpo_curves``.
"""
