"""The papers' tables: published rows, and what is counted, measured and predicted beside them."""
