"""Write the report: the NLL tables beside the published results, learning curves, and one page with all of it.

python -m pixelcnn.stages.report --reports reports --out reports/report
"""

from pixelcnn.reporting.page import write
from pixelcnn.stages import experiment, parse, parser, read_params, run


def main() -> None:
    args = parse(parser(__doc__, None, reports="folder of all stages' reports", out="folder for the report"))
    write(args.reports, read_params(), args.out, experiment())


if __name__ == "__main__":
    run(main)
