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

# The clients in TypeScript and Python against the real server
clients:
    .ci/run clients

# The book, and the command lines of the documents
docs:
    .ci/run docs

# The real server against its OpenAPI document
schemathesis:
    .ci/run schemathesis

# What is in deploy/, by the tools of those who read it
deploy:
    .ci/run deploy

# The archive of a release, with what it is made of, in target/dist/release
dist:
    deploy/dist.sh

# The real server, killed 500 times under load
torture:
    .ci/run torture

# The figures that the server is held to
bench:
    .ci/run bench

# What Iris adds to a provider's answer, beside a client that reads the provider itself
bench-agent:
    .ci/run bench_agent

# What it costs to tell many clients the same, beside a bare server
bench-fanout:
    .ci/run bench_fanout

# What supervision costs beside plain actix, compared with the last time
bench-actors:
    .ci/run bench_actors

# What the queries and commands of a project's database cost, compared with the last time
bench-store:
    .ci/run bench_store

# What it costs to read the streams of providers
bench-wires:
    .ci/run bench_wires

# What it costs to read a command line
bench-shell:
    .ci/run bench_shell

# What the sandbox costs a command, beside one without
bench-sandbox:
    .ci/run bench_sandbox

# What it costs to look through a project, beside ripgrep, and to judge a call by 10,000 rules
bench-tools:
    .ci/run bench_tools

# Every package, compiled from what is packed for a registry
package:
    .ci/run package

# What is in the dependency tree, and what is known against it
deny:
    .ci/run deny

# The documentation of the code, with warnings as errors
doc:
    .ci/run doc

# Everything
ci:
    .ci/run
