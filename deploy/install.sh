#!/bin/sh
# Installs storenode on this machine, or upgrades it. As root, from a checkout or an unpacked release:
#
#   deploy/install.sh store --store-id store-042 --broker mqtt://hq.example:1883
#   deploy/install.sh hq            HQ; with mosquitto on this machine, also the broker's configuration
#   deploy/install.sh uninstall     everything but settings (/etc/storenode) and data (/var/lib)
#
#   --wheelhouse DIR   take Python packages from DIR, not from an index. Made on a machine with the same Python by
#                      pip download --dest DIR --require-hashes -r requirements/runtime.txt
#                      pip wheel --wheel-dir DIR --no-deps .
#
# Run it again to upgrade: settings that are there are never changed, data is never touched.
# PYTHON names the interpreter (3.11 to 3.13); python3 if unset.
set -eu
umask 022

source=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
programs=/opt/storenode
settings=/etc/storenode
units=/etc/systemd/system
commands=/usr/local/bin
guides=/usr/share/doc/storenode

say() { echo "storenode: $*"; }

fail() {
    echo "error: $1" >&2
    [ -z "${2:-}" ] || echo "hint: $2" >&2
    exit 1
}

main() {
    role=${1:-}
    [ $# -eq 0 ] || shift
    read_options "$@"
    [ "$(id -u)" = 0 ] || fail "this needs root" "sudo $0 $role"
    case $role in
        store) install_store ;;
        hq) install_hq ;;
        uninstall) uninstall ;;
        *) sed -n 's/^# \{0,1\}//; 2,6p' "$0" >&2; exit 2 ;;
    esac
}

read_options() {
    store_id='' broker='' wheelhouse=''
    while [ $# -gt 0 ]; do
        [ $# -gt 1 ] || fail "$1 needs a value"
        case $1 in
            --store-id) store_id=$2 ;;
            --broker) broker=$2 ;;
            --wheelhouse) wheelhouse=$(CDPATH='' cd -- "$2" && pwd) ;;
            *) fail "unknown option $1" "--store-id, --broker, --wheelhouse" ;;
        esac
        shift 2
    done
    case $store_id$broker in *[\"\\]*) fail "a store id or broker holds no quotes and no backslashes" ;; esac
}

install_store() {
    install_programs storenode STORENODE_CONFIG
    install_settings storenode
    install_unit storenode
    if [ "$settings_made" = yes ] && { [ -z "$store_id" ] || [ -z "$broker" ]; }; then
        # Two stores with the example's id would throw each other off the line for ever.
        say "set store_id and broker in $settings/storenode.toml, then: systemctl start storenode"
    else
        start storenode
    fi
    say "whoever reads the replica: usermod -aG storenode NAME; how it stands: storenode status"
}

install_hq() {
    install_programs hq HQ_CONFIG
    install_settings hq
    install -d -o hq -g hq -m 2770 /var/lib/hq
    # Only on a first installation: a master that is merely not mounted must not be replaced by an empty one.
    if [ "$settings_made" = yes ]; then
        (umask 007; runuser -u hq -- env HQ_CONFIG=$settings/hq.toml $programs/bin/hq init)
    fi
    install_broker
    install_unit hq
    start hq
    say "whoever publishes: usermod -aG hq NAME; how it stands: hq status"
}

# The virtual environment, and the command with this machine's settings.
install_programs() {
    python=${PYTHON:-python3}
    # -I: this is root, and what lies in the working directory is no module.
    "$python" -I -c 'import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' ||
        fail "$python is not Python 3.11, 3.12 or 3.13 with venv" "apt-get install python3 python3-venv, or set PYTHON"
    # One whose interpreter went with an upgrade of the system is made anew.
    if ! $programs/bin/python -I -m pip --version >/dev/null 2>&1; then
        say "making $programs with $("$python" --version)"
        rm -rf $programs
        "$python" -I -m venv $programs
    fi
    pip --require-hashes -r "$source/requirements/runtime.txt"
    install_project
    install -D -m 644 -t $guides "$source/README.md"
    install -D -m 644 -t $guides/docs "$source"/docs/*.md
    install -D -m 644 -t $guides/docs/operating "$source"/docs/operating/*.md
    mkdir -p $commands
    cat >"$commands/$1" <<EOF
#!/bin/sh
# Made by storenode's installer: the command with this machine's settings.
: "\${$2:=$settings/$1.toml}"
export $2
exec $programs/bin/python -I $programs/bin/$1 "\$@"
EOF
    chmod 755 "$commands/$1"
}

# From the wheelhouse's wheel, or else from the source; from a copy, since a build leaves old modules behind.
install_project() {
    build=$(mktemp -d)
    trap 'rm -rf "$build"' EXIT
    project=$build
    for wheel in "$wheelhouse"/storenode-*.whl; do
        [ ! -e "$wheel" ] || project=$wheel
    done
    if [ "$project" = "$build" ]; then
        for part in pyproject.toml README.md LICENSE storelink hq storenode; do
            cp -R "$source/$part" "$build/"
        done
    fi
    pip --no-deps --force-reinstall "$project"
}

pip() {
    [ -z "$wheelhouse" ] || set -- --no-index --find-links "$wheelhouse" "$@"
    $programs/bin/python -I -m pip install --quiet --disable-pip-version-check --no-input \
        --root-user-action=ignore "$@" ||
        fail "pip could not install the Python packages; what was installed before goes on" \
            "no package index here? --wheelhouse DIR"
}

# The users, and the settings if none are there; sets settings_made. A broker's URL may hold a password.
install_settings() {
    install -D -m 644 "$source/deploy/sysusers.conf" /etc/sysusers.d/storenode.conf
    systemd-sysusers /etc/sysusers.d/storenode.conf
    settings_made=no
    [ ! -e "$settings/$1.toml" ] || return 0
    settings_made=yes
    install -D -o root -g "$1" -m 640 "$source/deploy/$1.toml" "$settings/$1.toml"
    [ -z "$store_id" ] || set_setting "$1" store_id "$store_id"
    [ -z "$broker" ] || set_setting "$1" broker "$broker"
}

set_setting() (
    umask 077
    NAME=$2 VALUE=$3 awk '$1 == ENVIRON["NAME"] { $0 = $1 " = \"" ENVIRON["VALUE"] "\"" } { print }' \
        "$settings/$1.toml" >"$settings/.new"
    cat "$settings/.new" >"$settings/$1.toml"
    rm "$settings/.new"
)

install_unit() {
    install -m 644 "$source/deploy/$1.service" "$units/$1.service"
    systemctl enable --quiet "$1"
}

install_broker() {
    place=/etc/mosquitto/conf.d
    if [ ! -d $place ]; then
        say "no mosquitto here: set broker in $settings/hq.toml, or install mosquitto and run this again"
    elif [ ! -e $place/storenode.conf ]; then
        install -m 644 "$source/deploy/mosquitto.conf" $place/storenode.conf
        start mosquitto
    fi
}

# Without a running systemd (an image being built) it starts at the next boot.
start() {
    [ -d /run/systemd/system ] || return 0
    systemctl daemon-reload
    systemctl restart "$1" || fail "$1 did not start; it is tried again every 2 s" "journalctl -u $1 -n 20"
    say "$1 runs"
}

uninstall() {
    for name in storenode hq; do
        if [ -e "$units/$name.service" ]; then
            if [ -d /run/systemd/system ]; then systemctl stop "$name"; fi
            systemctl disable --quiet "$name"
        fi
        rm -f "$units/$name.service" "$commands/$name"
    done
    rm -rf $programs $guides
    if [ -d /run/systemd/system ]; then systemctl daemon-reload; fi
    say "removed; left as they are: $settings, /var/lib/storenode, /var/lib/hq, the users, mosquitto"
}

main "$@"
