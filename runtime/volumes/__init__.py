"""Volumes that lie on disks: LVM's logical volumes, LUKS, and the members of a RAID1 of Linux."""
