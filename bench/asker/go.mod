module lamassu/bench/asker

go 1.22
