#!/bin/sh
# The benchmark's peer: a hookscript for Open vSwitch mirrors of the kind that guides recommend, in our own words:
# clear the bridge's mirrors, look the ports up, create the mirror, list it.
#
#   ovs-vsctl-mirror.sh <vmid> <phase>
#
# It is not for use. It clears everybody's mirrors on the bridge, it knows one guest and one sensor, and nobody tells
# it of an unplugged port. In its favour: it runs in sh instead of bash, logs nothing, and leaves out the `sleep 5`
# with which guides wait for the guest's tap device.
#
# As with any ovs-vsctl, OVS_RUNDIR says which Open vSwitch is meant. MIRROR_SOURCE=bridge mirrors the whole bridge
# instead of the one guest.

vmid=$1
phase=$2
bridge=vmbr2
sensor=tap9000i1

case $phase in
post-start)
    ovs-vsctl clear Bridge "$bridge" mirrors || exit 1
    if [ "${MIRROR_SOURCE:-guest}" = bridge ]; then
        ovs-vsctl \
            -- --id=@output get Port "$sensor" \
            -- --id=@mirror create Mirror name=span0 select-all=true output-port=@output \
            -- set Bridge "$bridge" mirrors=@mirror || exit 1
    else
        port=tap${vmid}i0
        # A guest with the firewall on is behind a bridge of its own.
        if [ -e "/sys/class/net/fwln${vmid}o0" ]; then
            port=fwln${vmid}o0
        fi
        ovs-vsctl \
            -- --id=@source get Port "$port" \
            -- --id=@output get Port "$sensor" \
            -- --id=@mirror create Mirror name=span0 select-src-port=@source select-dst-port=@source \
            output-port=@output \
            -- set Bridge "$bridge" mirrors=@mirror || exit 1
    fi
    ovs-vsctl list Mirror
    ;;
pre-stop)
    ovs-vsctl clear Bridge "$bridge" mirrors
    ;;
esac
