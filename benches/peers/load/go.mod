module switchyard/benches/peers/load

go 1.26
