module lamassu/bench/loadgen

go 1.21
