# A practice chain on this machine: a broker, HQ and the store store-042, in the directory practice. For the tutorials.
#
#   . docs/examples/practice.sh             make it and start it; `hq` and `storenode` must be on the PATH
#   practice stop broker|hq|store|api       stop one of them
#   practice start broker|hq|store|api      start it again
#   practice end                            stop all of them; the files stay in practice
#
# PRACTICE_PORT is the broker's port on the loopback; 18830 if it is not set.

PRACTICE=$PWD/practice
PRACTICE_PORT=${PRACTICE_PORT:-18830}
export HQ_DB="$PRACTICE/hq/hq.db" HQ_BROKER="mqtt://127.0.0.1:$PRACTICE_PORT" HQ_HEARTBEAT_S=1
export STORENODE_DB="$PRACTICE/store/replica.db" STORENODE_BROKER="$HQ_BROKER" STORENODE_STORE_ID=store-042
PATH=$PATH:/usr/sbin

practice() {
    case "$1 $2" in
    "start broker")
        if command -v mosquitto >/dev/null; then
            _practice_start broker mosquitto -c "$PRACTICE/mosquitto.conf"
        else
            _practice_start broker python -m iotcore --config "$PRACTICE/rumqttd.toml"
        fi ;;
    "start hq") _practice_start hq hq run ;;
    "start store") _practice_start store storenode run ;;
    "start api") _practice_start api storenode api --listen "unix:$PRACTICE/api.sock" ;;
    "stop broker" | "stop hq" | "stop store" | "stop api") _practice_stop "$2" ;;
    "end ") for each in api store hq broker; do _practice_stop $each; done ;;
    *)
        echo "practice start|stop broker|hq|store|api, or practice end" >&2
        return 2 ;;
    esac
}

_practice_start() {
    _practice_name=$1
    shift
    "$@" </dev/null >>"$PRACTICE/$_practice_name.log" 2>&1 &
    echo $! >"$PRACTICE/$_practice_name.pid"
}

_practice_stop() {
    [ -f "$PRACTICE/$1.pid" ] || return 0
    _practice_pid=$(cat "$PRACTICE/$1.pid")
    rm "$PRACTICE/$1.pid"
    kill "$_practice_pid" 2>/dev/null
    wait "$_practice_pid" 2>/dev/null
    return 0
}

_practice_make() {
    mkdir -p "$PRACTICE/hq" "$PRACTICE/store"
    printf 'user %s\nlistener %s 127.0.0.1\nallow_anonymous true\nset_tcp_nodelay true\nmax_queued_messages 20000\n' \
        "$(id -un)" "$PRACTICE_PORT" >"$PRACTICE/mosquitto.conf"
    cat >"$PRACTICE/rumqttd.toml" <<END
id = 0
[router]
id = 0
max_connections = 100
max_outgoing_packet_count = 200
max_segment_size = 104857600
max_segment_count = 10
[v5.1]
name = "mqtt5"
listen = "127.0.0.1:$PRACTICE_PORT"
next_connection_delay_ms = 0
    [v5.1.connections]
    connection_timeout_ms = 60000
    max_payload_size = 1048576
    max_inflight_count = 200
    dynamic_filters = true
END
    practice start broker
    hq init >/dev/null
    hq import product docs/examples/products.csv >/dev/null
    hq import price docs/examples/prices.csv >/dev/null
    practice start hq
    practice start store
    _practice_tries=0
    until storenode price 4011 >/dev/null 2>&1; do
        _practice_tries=$((_practice_tries + 1))
        if [ $_practice_tries -gt 40 ]; then
            echo "the store does not come up: see $PRACTICE/store.log, hq.log and broker.log" >&2
            return 1
        fi
        sleep 0.4
    done
    echo "practice chain: a broker, HQ and store-042, with 3 products and 3 prices"
}

if [ -e "$PRACTICE" ]; then
    echo "there is a directory practice already: type practice end, and rm -r practice" >&2
else
    _practice_make
fi
