"""Draw the sample grid of one run: samples, reconstructions or interpolations, by what its model is conditioned on.

python -m pixelcnn.stages.sample RUN --model models/RUN --data data/prepared/DATASET --out reports/sample/RUN.png
"""

from pixelcnn import checkpoint
from pixelcnn.data.dataset import read_split
from pixelcnn.device import default, prepare
from pixelcnn.generation.grids import save_grid
from pixelcnn.generation.sample_grids import sample_grid
from pixelcnn.stages import parse, parser, read_params, run
from pixelcnn.tracking import runs


def main() -> None:
    args = parse(
        parser(
            __doc__,
            "an entry of `runs`",
            model="the run's model",
            data="the prepared data set",
            out="PNG file to write",
        )
    )
    settings = read_params().sample
    device = default()
    prepare(device)
    model = checkpoint.load_for(args.data, args.model, device)
    grid = sample_grid(model, read_split(args.data, "test"), settings, args.name)  # (rows, columns, C, H, W)
    weights = checkpoint.identity(model)
    save_grid(args.out, grid.flatten(0, 1), grid.shape[1], model.data.levels, weights_sha256=weights)
    with runs.run_of_weights(model.data.dataset, weights, args.name) as log:
        log.log_files({"samples": args.out})


if __name__ == "__main__":
    run(main)
