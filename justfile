# What a developer runs. `just --list` shows it.

# a server and a shop that sends it spans
demo *args:
    cargo run --release -- demo {{args}}

# every test
test *args:
    cargo test {{args}}

# everything that must hold before a change lands
check:
    .ci/run

# the whole way, measured from outside; then the pieces
bench spans="1000000":
    cargo bench --bench end_to_end -- --spans {{spans}}
    cargo bench --bench latency
    cargo bench --bench ingest
    cargo bench --bench query

# real programs with real SDKs; needs their toolchains and package registries
interop *languages="python go js java":
    cargo build --release
    for language in {{languages}}; do tests/interop/$language/run.sh || exit 1; done

# real exporters against a server that is killed and restarted every 7 s: `just interop-restarts --seconds 600 python go-grpc`
interop-restarts *args:
    cargo build --release
    tests/interop/restarts.py {{args}}

# the long fault runs, an hour or more, with their figures on the terminal; root for power cuts and full disks
soak *filter="faults":
    SPANDREL_FAULTS=long cargo test --release --locked --test it {{filter}} -- --nocapture --test-threads=1

# every fuzz target for so many seconds, from its seeds; finds in fuzz/artifacts. Needs `cargo install --locked cargo-fuzz`
fuzz seconds="60" *targets="decode json zipkin body journal block traceql":
    fuzz/run {{seconds}} {{targets}}
