#!/bin/sh
# Turns a minimal Debian or Ubuntu root with our packages into the root of an image: of the one whose name is $1. It runs
# inside that root, by chroot after a bootstrap.
set -eu

# Our own first process. Packages that bring another one, or a program that ends the machine, must not put it in its place.
use_pixels_init() {
	for name in init poweroff halt reboot; do
		for dir in /sbin /usr/sbin; do
			dpkg-divert --quiet --local --no-rename --divert "$dir/$name.distrib" --add "$dir/$name"
		done
		ln -sfn /usr/lib/pixels/pixels-init-* "/sbin/$name"
	done
	: >/etc/resolv.conf
}

use_systemd() {
	# The client identifier is the MAC address: the default one derives from the machine id, which clones of one checkpoint
	# share, and a DHCP server would hand all of them the same address. No IPv6 RA: nothing here sends one, and waiting for
	# it delays "online".
	mkdir -p /etc/systemd/network
	cat >/etc/systemd/network/10-eth0.network <<'END'
[Match]
Name=eth0

[Network]
DHCP=ipv4
LinkLocalAddressing=ipv6
IPv6AcceptRA=no

[DHCPv4]
ClientIdentifier=mac
UseDNS=yes
UseDomains=yes
UseHostname=no

# The gateway of a wire, so that nobody has to ask for its hardware address.
[Neighbor]
Address=169.254.1.1
LinkLayerAddress=02:70:69:78:00:01
END

	# A sandbox must be usable a moment after its start, so what only serves long-lived machines does not run.
	mkdir -p /etc/systemd/system
	for unit in systemd-networkd-wait-online.service systemd-logind.service console-getty.service getty@tty1.service \
		getty-static.service apt-daily.timer apt-daily.service apt-daily-upgrade.timer apt-daily-upgrade.service \
		dpkg-db-backup.timer e2scrub_all.timer e2scrub_reap.service fstrim.timer motd-news.timer \
		systemd-journal-flush.service systemd-modules-load.service sys-kernel-debug.mount sys-kernel-tracing.mount \
		sys-kernel-config.mount sys-fs-fuse-connections.mount dev-hugepages.mount systemd-binfmt.service \
		proc-sys-fs-binfmt_misc.automount systemd-random-seed.service systemd-boot-random-seed.service \
		systemd-update-utmp.service systemd-update-utmp-runlevel.service systemd-pstore.service; do
		ln -sfn /dev/null "/etc/systemd/system/$unit"
	done
	wants=/etc/systemd/system/multi-user.target.wants
	lib=/lib/systemd/system
	mkdir -p "$wants"
	ln -sfn "$lib/systemd-networkd.service" "$wants/systemd-networkd.service"
	ln -sfn "$lib/systemd-resolved.service" "$wants/systemd-resolved.service"
	ln -sfn multi-user.target /etc/systemd/system/default.target 2>/dev/null || true
	ln -sfn "$lib/multi-user.target" /etc/systemd/system/default.target
	# A small journal in memory: the disk of a sandbox belongs to its work.
	mkdir -p /etc/systemd/journald.conf.d
	printf '[Journal]\nStorage=volatile\nRuntimeMaxUse=16M\n' >/etc/systemd/journald.conf.d/pixels.conf
	# A start keeps what is in /tmp, as it does where systemd doesn't run: it belongs to a checkpoint.
	mkdir -p /etc/tmpfiles.d
	printf 'q /tmp 1777 root root -\nq /var/tmp 1777 root root -\n' >/etc/tmpfiles.d/tmp.conf
	# From here on names inside this root resolve only where systemd-resolved runs.
	ln -sfn ../run/systemd/resolve/stub-resolv.conf /etc/resolv.conf
}

if ! id -u pixel >/dev/null 2>&1; then
	groupadd -g 1000 pixel
	useradd -u 1000 -g 1000 -m -d /home/pixel -s /bin/bash pixel
fi
usermod -aG sudo pixel
printf 'pixel ALL=(ALL:ALL) NOPASSWD:ALL\n' >/etc/sudoers.d/pixel
chmod 0440 /etc/sudoers.d/pixel

if [ -n "$(find /usr/local/share/ca-certificates -name '*.crt' 2>/dev/null | head -n 1)" ]; then
	update-ca-certificates >/dev/null
fi

printf '127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n' >/etc/hosts
printf 'LANG=C.UTF-8\n' >/etc/default/locale
apt-get clean
rm -rf /var/lib/apt/lists/* /var/cache/apt/*.bin /var/cache/debconf/*-old /var/lib/dpkg/*-old /tmp/* /var/tmp/*
rm -rf /var/log/journal /usr/share/doc/* /usr/share/man/* /usr/share/info/* /usr/share/locale/*
find /var/log -type f -exec truncate -s 0 {} +
: >/etc/machine-id
rm -f /var/lib/dbus/machine-id /etc/hostname
chmod 0755 /usr/lib/pixels/pixels-init-*
case $1 in
base) use_pixels_init ;;
base-systemd) use_systemd ;;
*) echo "there is no image $1" >&2; exit 1 ;;
esac
