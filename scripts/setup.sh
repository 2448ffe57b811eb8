#!/bin/sh
# Installs what building and running personas needs and is not here yet: Rust is checked for, a C compiler and the
# Postgres server are installed. With --tests also curl, which the commands of the documentation are tried with, and what
# looks at the console: Chromium, Node and two packages of scripts/console; where that does not work it is said, and the
# tests say what they leave out. Says what it does; says nothing and changes nothing when all is there.
set -eu

say() { printf '%s\n' "setup: $*" >&2; }
fail() { say "$*"; exit 1; }
have() { command -v "$1" >/dev/null 2>&1; }

# Runs a command as root: directly, or through sudo.
as_root() {
    if [ "$(id -u)" -eq 0 ]; then "$@"
    elif have sudo; then sudo "$@"
    else fail "this needs root and there is no sudo; run as root: $*"
    fi
}

# Whether a folder holds the server in a version personas works with (15 to 18).
is_postgres() {
    [ -x "$1/initdb" ] && [ -x "$1/postgres" ] || return 1
    case "$("$1/postgres" --version 2>/dev/null)" in
        *' 15.'* | *' 16.'* | *' 17.'* | *' 18.'*) return 0 ;;
        *) return 1 ;;
    esac
}

# The same places `personas` looks in (src/embedded/find.rs).
have_postgres() {
    if [ -n "${PERSONAS_POSTGRES_BIN:-}" ]; then is_postgres "$PERSONAS_POSTGRES_BIN"; return; fi
    if have postgres && is_postgres "$(dirname "$(command -v postgres)")"; then return 0; fi
    for dir in /usr/lib/postgresql/*/bin /usr/pgsql-*/bin /usr/lib/postgresql*/bin /usr/libexec/postgresql* \
        /opt/homebrew/opt/postgresql@*/bin /usr/local/opt/postgresql@*/bin \
        /home/linuxbrew/.linuxbrew/opt/postgresql@*/bin /Applications/Postgres.app/Contents/Versions/*/bin \
        /usr/local/pgsql/bin /usr/local/bin /usr/bin; do
        if is_postgres "$dir"; then return 0; fi
    done
    return 1
}

apt_install() { as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "$@"; }

install_postgres_with_apt() {
    as_root apt-get update -q
    package=$(apt-cache search --names-only '^postgresql-1[5-8]$' | cut -d' ' -f1 | sort -r | head -n 1)
    [ -n "$package" ] || fail "this system's packages have no Postgres 15 to 18: add the PostgreSQL project's" \
        "package source, name a folder with its binaries in PERSONAS_POSTGRES_BIN, or set DATABASE_URL"
    # The package would make and start a server of its own, which nobody here needs. Where the packages' tools are
    # installed already, their settings are somebody's and stay as they are.
    if ! dpkg -s postgresql-common >/dev/null 2>&1; then
        as_root mkdir -p /etc/postgresql-common
        printf '%s\n' '# written by personas: it starts its own server' 'create_main_cluster = false' |
            as_root tee /etc/postgresql-common/createcluster.conf >/dev/null
    fi
    # With a settings file already there, dpkg has to be told to keep it.
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends \
        -o Dpkg::Options::=--force-confold "$package"
}

install_postgres() {
    say "no Postgres 15 to 18 found: installing the server package"
    if have apt-get; then install_postgres_with_apt
    elif have dnf; then as_root dnf install -y postgresql-server
    elif have brew; then brew install postgresql@18
    else fail "do not know this system's packages: install Postgres 15 to 18, or set DATABASE_URL"
    fi
    have_postgres || fail "Postgres was installed but no version from 15 to 18 is found; set PERSONAS_POSTGRES_BIN"
}

install_compiler() {
    say "no C compiler found: installing one"
    if have apt-get; then as_root apt-get update -q; apt_install gcc g++ make libc6-dev
    elif have dnf; then as_root dnf install -y gcc gcc-c++ make
    elif have xcode-select; then xcode-select --install; fail "start again once Apple's tools are installed"
    else fail "install a C compiler"
    fi
}

install_curl() {
    say "no curl found: installing it, for the tests of what the documentation says"
    if have apt-get; then as_root apt-get update -q; apt_install curl
    elif have dnf; then as_root dnf install -y curl
    elif have brew; then brew install curl
    else fail "install curl"
    fi
}

have_browser() {
    for name in "${CHROMIUM:-chromium}" chromium-browser google-chrome google-chrome-stable; do
        if have "$name"; then return 0; fi
    done
    return 1
}

install_browser() {
    say "no Chromium or no Node found: installing what is missing, for the tests of the console"
    if have apt-get; then
        as_root apt-get update -q
        have_browser || apt_install chromium fonts-dejavu-core
        have npm || apt_install nodejs npm
    elif have dnf; then as_root dnf install -y chromium nodejs-npm
    elif have brew; then { have_browser || brew install --cask chromium; }; { have npm || brew install node; }
    else return 1
    fi
}

# What the tests of the console need; the others run without it.
prepare_browser() {
    packages="$(dirname "$0")/console"
    if have_browser && have npm && [ -d "$packages/node_modules/puppeteer-core" ]; then return; fi
    { have_browser && have npm; } || install_browser >&2 || true
    if have_browser && have npm && (cd "$packages" && npm ci --no-fund --no-audit --ignore-scripts >&2); then return; fi
    say "NOTE: Chromium, Node and the packages of scripts/console are not all here: the tests do not look at the console"
}

have cargo || fail "cargo is missing: install Rust 1.95 or later (https://www.rust-lang.org/tools/install)"
have cc || install_compiler
have_postgres || install_postgres
if [ "${1:-}" = --tests ]; then
    have curl || install_curl
    prepare_browser
fi
