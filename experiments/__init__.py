"""The first fair test of NeuroPlastic: data, training, records, statistics, figures, report."""
