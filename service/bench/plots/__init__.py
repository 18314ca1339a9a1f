"""What the benchmarks saved, drawn: `sdcom bench plots`."""
