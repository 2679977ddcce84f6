"""Train a churn classifier and save it as ONNX. The example that you copy: it imports nothing of HX-MLOps.

It is called as `python train.py --data FILE --parameters FILE --output DIR`:

--data        Parquet: float32 feature columns, and the target as float32 (1 is the positive class)
--parameters  JSON: "features" and "target" (columns of the data), "output" (the name that the model's output must
              have), "seed", and "parameters", which is what the workflow file says under `parameters`
--output      an empty folder for model.onnx (one float32 input, [any rows, features]) and metrics.json

What it prints is shown as progress. An exit code other than 0 means that training failed.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from skl2onnx import to_onnx
from skl2onnx.common.data_types import FloatTensorType
from sklearn.ensemble import GradientBoostingClassifier
from sklearn.metrics import average_precision_score, roc_auc_score
from sklearn.model_selection import train_test_split


def main(data: Path, parameters: Path, output: Path) -> None:
    told = json.loads(parameters.read_text())
    table = pq.read_table(data)
    features = np.column_stack([table[name].to_numpy() for name in told["features"]])
    target = table[told["target"]].to_numpy()

    # Learn from four fifths, look at the rest, to say how good the model is before anybody else tests it.
    learn, look, learn_target, look_target = train_test_split(
        features, target, test_size=0.2, random_state=told["seed"], stratify=target
    )
    model = GradientBoostingClassifier(**told["parameters"], random_state=told["seed"])
    model.fit(learn, learn_target)
    score = model.predict_proba(look)[:, 1]
    metrics = {
        "roc_auc": roc_auc_score(look_target, score),
        "average_precision": average_precision_score(look_target, score),
    }
    print(", ".join(f"{name} {value:.3f}" for name, value in metrics.items()))

    onnx = to_onnx(
        model,
        initial_types=[("features", FloatTensorType([None, features.shape[1]]))],
        options={"zipmap": False},  # probabilities as one tensor [rows, 2], not as a list of mappings
    )
    onnx.opset_import.sort(key=lambda opset: opset.domain)  # comes in any order; the same model is the same bytes
    (output / "model.onnx").write_bytes(onnx.SerializeToString(deterministic=True))
    (output / "metrics.json").write_text(json.dumps(metrics))


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    for name in ("data", "parameters", "output"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    main(**vars(parser.parse_args()))
