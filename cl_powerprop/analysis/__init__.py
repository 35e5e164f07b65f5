"""Run folders as tables, plots and reports. Imports no torch."""

from cl_powerprop.analysis.comparison import Comparison, compare_runs
from cl_powerprop.analysis.runs import Runs, load_runs
from cl_powerprop.analysis.tables import pairwise_table, summary_table

__all__ = ["Comparison", "Runs", "compare_runs", "load_runs", "pairwise_table", "summary_table"]
