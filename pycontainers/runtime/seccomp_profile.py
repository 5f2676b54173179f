"""The default seccomp profile: what Docker's default allows, in the OCI form (moby's profile, as of 2026).

Everything not named here fails with EPERM. ``clone3`` fails with ENOSYS, because a filter cannot look through its pointer to
see the namespace flags: C libraries then fall back to ``clone``, whose flags are checked. io_uring is absent: it does file
and network work that no filter sees.
"""

from __future__ import annotations

from typing import Any

_ALWAYS = """
accept accept4 access adjtimex alarm arch_prctl bind brk cachestat capget capset chdir chmod chown clock_adjtime clock_getres
clock_gettime clock_nanosleep close close_range connect copy_file_range creat dup dup2 dup3 epoll_create epoll_create1 epoll_ctl
epoll_ctl_old epoll_pwait epoll_pwait2 epoll_wait epoll_wait_old eventfd eventfd2 execve execveat exit exit_group faccessat
faccessat2 fadvise64 fallocate fanotify_mark fchdir fchmod fchmodat fchmodat2 fchown fchownat fcntl fdatasync fgetxattr
flistxattr flock fork fremovexattr fsetxattr fstat fstatfs fsync ftruncate futex futex_requeue futex_wait futex_waitv futex_wake
futimesat getcpu getcwd getdents getdents64 getegid geteuid getgid getgroups getitimer getpeername getpgid getpgrp getpid getppid
getpriority getrandom getresgid getresuid getrlimit get_robust_list getrusage getsid getsockname getsockopt get_thread_area gettid
gettimeofday getuid getxattr getxattrat inotify_add_watch inotify_init inotify_init1 inotify_rm_watch io_cancel ioctl io_destroy
io_getevents io_pgetevents ioprio_get ioprio_set io_setup io_submit kill landlock_add_rule landlock_create_ruleset
landlock_restrict_self lchown lgetxattr link linkat listen listxattr listxattrat llistxattr lremovexattr lseek lsetxattr lstat
madvise map_shadow_stack membarrier memfd_create memfd_secret mincore mkdir mkdirat mknod mknodat mlock mlock2 mlockall mmap
modify_ldt mprotect mq_getsetattr mq_notify mq_open mq_timedreceive mq_timedsend mq_unlink mremap mseal msgctl msgget msgrcv
msgsnd msync munlock munlockall munmap name_to_handle_at nanosleep newfstatat open openat openat2 pause pidfd_open
pidfd_send_signal pipe pipe2 pkey_alloc pkey_free pkey_mprotect poll ppoll prctl pread64 preadv preadv2 prlimit64 process_mrelease
pselect6 ptrace pwrite64 pwritev pwritev2 read readahead readlink readlinkat readv recvfrom recvmmsg recvmsg remap_file_pages
removexattr removexattrat rename renameat renameat2 restart_syscall rmdir rseq rt_sigaction rt_sigpending rt_sigprocmask
rt_sigqueueinfo rt_sigreturn rt_sigsuspend rt_sigtimedwait rt_tgsigqueueinfo sched_getaffinity sched_getattr sched_getparam
sched_get_priority_max sched_get_priority_min sched_getscheduler sched_rr_get_interval sched_setaffinity sched_setattr
sched_setparam sched_setscheduler sched_yield seccomp select semctl semget semop semtimedop sendfile sendmmsg sendmsg sendto setfsgid
setfsuid setgid setgroups setitimer setpgid setpriority setregid setresgid setresuid setreuid setrlimit set_robust_list setsid
setsockopt set_thread_area set_tid_address setuid setxattr setxattrat shmat shmctl shmdt shmget shutdown sigaltstack signalfd
signalfd4 socketpair splice stat statfs statx symlink symlinkat sync sync_file_range syncfs sysinfo tee tgkill time timer_create
timer_delete timer_getoverrun timer_gettime timer_settime timerfd_create timerfd_gettime timerfd_settime times tkill truncate umask
uname unlink unlinkat uretprobe utime utimensat utimes vfork vmsplice wait4 waitid write writev process_vm_readv process_vm_writev
lsm_get_self_attr lsm_set_self_attr lsm_list_modules
""".split()

#: capability -> calls that are allowed to a container that has it (Docker's conditional groups)
_WITH_CAPABILITY = {
    "CAP_DAC_READ_SEARCH": "open_by_handle_at",
    "CAP_SYS_ADMIN": "bpf clone clone3 fanotify_init fsconfig fsmount fsopen fspick listmount lookup_dcookie mount mount_setattr "
    "move_mount open_tree open_tree_attr perf_event_open quotactl quotactl_fd setdomainname sethostname setns statmount "
    "syslog umount umount2 unshare",
    "CAP_SYS_BOOT": "reboot",
    "CAP_SYS_CHROOT": "chroot",
    "CAP_SYS_MODULE": "delete_module init_module finit_module",
    "CAP_SYS_PACCT": "acct",
    "CAP_SYS_PTRACE": "kcmp pidfd_getfd process_madvise",
    "CAP_SYS_RAWIO": "iopl ioperm",
    "CAP_SYS_TIME": "settimeofday clock_settime",
    "CAP_SYS_TTY_CONFIG": "vhangup",
    "CAP_SYS_NICE": "get_mempolicy mbind migrate_pages move_pages set_mempolicy set_mempolicy_home_node",
    "CAP_SYSLOG": "syslog",
    "CAP_BPF": "bpf",
    "CAP_PERFMON": "perf_event_open",
}

_NAMESPACE_FLAGS = 0x7E020000  # every CLONE_NEW* that clone(2) takes (NEWTIME cannot be given to it)
_AF_ALG, _AF_VSOCK = 38, 40


def default_profile(capabilities: list[str]) -> dict[str, Any]:
    """The OCI ``linux.seccomp`` object for a container with these capabilities."""
    allowed = set(_ALWAYS)
    for capability in capabilities:
        allowed.update(_WITH_CAPABILITY.get(capability, "").split())
    allow = "SCMP_ACT_ALLOW"
    calls: list[dict[str, Any]] = [{"names": sorted(allowed), "action": allow}]
    # personality: Linux, UNAME26, ADDR_NO_RANDOMIZE, both, and the query
    calls += [
        {"names": ["personality"], "action": allow, "args": [{"index": 0, "value": value, "op": "SCMP_CMP_EQ"}]}
        for value in (0x0, 0x0008, 0x20000, 0x20008, 0xFFFFFFFF)
    ]
    # AF_VSOCK leads to the hypervisor and AF_ALG to kernel code with a long list of holes: neither is namespaced.
    calls += [
        {"names": ["socket"], "action": allow, "args": [{"index": 0, "value": _AF_ALG, "op": "SCMP_CMP_LT"}]},
        {"names": ["socket"], "action": allow, "args": [{"index": 0, "value": _AF_ALG + 1, "op": "SCMP_CMP_EQ"}]},
        {"names": ["socket"], "action": allow, "args": [{"index": 0, "value": _AF_VSOCK, "op": "SCMP_CMP_GT"}]},
    ]
    if "CAP_SYS_ADMIN" not in capabilities:
        calls += [
            {
                "names": ["clone"],
                "action": allow,
                "args": [{"index": 0, "value": _NAMESPACE_FLAGS, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ"}],
            },
            {"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38},
        ]
    return {
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": 1,
        "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_AARCH64"],
        "syscalls": calls,
    }
