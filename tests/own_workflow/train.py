"""Ridge regression in NumPy, saved as ONNX by hand: the contract of train.py asks for no framework.

A missing measurement is replaced by the column's mean, inside the model too.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from onnx import TensorProto, helper, numpy_helper


def main(data: Path, parameters: Path, output: Path) -> None:
    told = json.loads(parameters.read_text())
    table = pq.read_table(data)
    features = np.column_stack([table[name].to_numpy() for name in told["features"]]).astype(np.float64)
    target = table[told["target"]].to_numpy().astype(np.float64)

    mean = np.nanmean(features, axis=0)
    centred = np.where(np.isnan(features), mean, features) - mean
    scale = np.maximum(centred.std(axis=0), 1e-9)
    scaled = centred / scale
    penalty = told["parameters"]["ridge"] * np.eye(scaled.shape[1])
    weights = np.linalg.solve(scaled.T @ scaled + penalty, scaled.T @ (target - target.mean()))
    error = scaled @ weights + target.mean() - target
    print(f"rmse {np.sqrt(np.mean(error**2)):.2f} on the rows learnt from")

    write_model(output / "model.onnx", told["output"]["name"], mean, weights / scale, target.mean())
    (output / "metrics.json").write_text(json.dumps({"training_rmse": float(np.sqrt(np.mean(error**2)))}))


def write_model(file: Path, name: str, mean: np.ndarray, slope: np.ndarray, level: float) -> None:
    """(x - mean, 0 where x is missing) @ slope + level."""
    constants = {"mean": mean, "nothing": np.zeros(1), "slope": slope[:, None], "level": np.array([level])}
    graph = helper.make_graph(
        [
            helper.make_node("Sub", ["kpis", "mean"], ["difference"]),
            helper.make_node("IsNaN", ["kpis"], ["missing"]),
            helper.make_node("Where", ["missing", "nothing", "difference"], ["centred"]),
            helper.make_node("MatMul", ["centred", "slope"], ["rise"]),
            helper.make_node("Add", ["rise", "level"], [name]),
        ],
        "throughput",
        [helper.make_tensor_value_info("kpis", TensorProto.FLOAT, ["rows", len(mean)])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["rows", 1])],
        [numpy_helper.from_array(value.astype(np.float32), key) for key, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    file.write_bytes(model.SerializeToString(deterministic=True))


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    for option in ("data", "parameters", "output"):
        parser.add_argument(f"--{option}", type=Path, required=True)
    main(**vars(parser.parse_args()))
