# The verbs of the project. `just ci` is exactly what CI runs.

_default:
    @just --list

# Formats the code
fmt:
    cargo fmt --all

# Format, then clippy with warnings as errors
lint:
    .ci/run fmt lint

# Every test
test:
    .ci/run test

# The whole server over real sockets
api:
    .ci/run api

# What happens when parts of the server fail
faults:
    .ci/run faults

# The figures that the server is held to
bench:
    .ci/run bench

# What supervision costs beside plain actix, compared with the last time
bench-actors:
    .ci/run bench_actors

# The documentation of the code, with warnings as errors
doc:
    .ci/run doc

# Everything
ci:
    .ci/run
