"""The commands, one file per group. Each parses its arguments, calls the Python API or an experiment, and prints.

The order of the imports is that of `rlzoo --help`. Nothing heavy is imported before a command runs.
"""

# isort: off
from rlzoo.cli.commands import zoo as zoo
from rlzoo.cli.commands import check as check
from rlzoo.cli.commands import train as train
from rlzoo.cli.commands import explain as explain
from rlzoo.cli.commands import report as report
from rlzoo.cli.commands import doctor as doctor
from rlzoo.cli.commands import reproduce as reproduce
from rlzoo.cli.commands import warmstart as warmstart
from rlzoo.cli.commands import lab as lab
