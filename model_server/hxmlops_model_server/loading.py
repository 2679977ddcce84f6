"""From a listed version to a model that answers: verify, compile the recipe, load."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hxmlops_model_server.model import Matrix, Model
from hxmlops_model_server.serving import Version
from hxmlops_model_server.verification import Unfit, verified


class Loader:
    """Loads versions whose statements verify by the pins in one trust folder."""

    def __init__(self, trust: Path, threads: int) -> None:
        """`threads`: ONNX Runtime's for one request."""
        self._trust, self._threads = trust, threads

    def __call__(self, version: Version) -> Model:
        """Raises Unfit."""
        content = verified(version, self._trust)
        import duckdb  # these take a second: not at the server's start

        from hxmlops_recipe.recipe import RowTransformer

        try:
            transformer = RowTransformer(content.recipe, version.columns)
        except ValueError as problem:
            raise Unfit(str(problem)) from None

        def transform(rows: dict[str, list[Any]]) -> Matrix:
            try:
                return transformer(rows)
            except duckdb.DataError:
                raise ValueError("a number is beyond what its column can hold") from None

        return Model(
            content.onnx,
            transform=transform,
            columns=version.columns,
            used={feature["column"] for feature in content.recipe["features"]},
            width=len(transformer.feature_names),
            output=version.output,
            threads=self._threads,
        )
