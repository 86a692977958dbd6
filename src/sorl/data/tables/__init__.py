"""Data in tables with named columns: npz, parquet and CSV files, and a mapping that says what each column is."""
