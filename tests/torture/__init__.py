"""The promises about what is never lost, tried the hard way: long here, short in the suite."""
