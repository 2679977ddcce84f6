"""What a data owner and a model maker agree on: the schema of the data, its protection, the model's features.

`contract` reads the agreement. `recipe` carries it out: the same Ibis expressions make the columns that a
model is trained on, tested on and served with. `tables` reads CSV files with the declared types.
"""
