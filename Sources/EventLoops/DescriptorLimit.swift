import Glibc

/// The number of files and sockets that the process may have open.
public enum DescriptorLimit {
    /// Raises the soft limit to the hard one. Shells start programs with 1,024, which fewer clients than a server can carry use up.
    /// - Returns: the limit that holds now.
    @discardableResult
    public static func raise() -> Int {
        var limit = rlimit()
        let resource = __rlimit_resource_t(RLIMIT_NOFILE.rawValue)
        guard getrlimit(resource, &limit) == 0 else { return 0 }
        if limit.rlim_cur < limit.rlim_max {
            let previous = limit.rlim_cur
            limit.rlim_cur = limit.rlim_max
            if setrlimit(resource, &limit) != 0 { limit.rlim_cur = previous }
        }
        return Int(clamping: limit.rlim_cur)
    }
}
