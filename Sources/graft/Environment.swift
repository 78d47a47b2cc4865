import FoundationEssentials
import Kernels
import TLS

#if canImport(Glibc)
import Glibc
#endif

/// The process's environment and machine.
enum Environment {
    static subscript(name: String) -> String? {
        guard let value = getenv(name), value.pointee != 0 else { return nil }
        return String(cString: value)
    }

    /// What this process may use: the machine's, or a container's limit.
    static var memoryBytes: Int {
        let physical = sysconf(Int32(_SC_PHYS_PAGES)) * sysconf(Int32(_SC_PAGESIZE))
        guard let limit = controlGroup("memory.max").first.flatMap({ Int($0) }), limit > 0 else { return physical }
        return min(physical, limit)
    }

    /// Compute threads that make sense: the processors of the affinity mask, or what a container's quota pays for.
    static var processorCount: Int {
        var count = min(ComputePool.processorCount, 256)
        let quota = controlGroup("cpu.max").compactMap { Int($0) }
        if quota.count == 2, quota[0] > 0, quota[1] > 0 { count = min(count, (quota[0] + quota[1] - 1) / quota[1]) }
        return max(1, count)
    }

    /// The words of a control group's file ("max" where there is no limit); empty without control groups.
    private static func controlGroup(_ name: String) -> [Substring] {
        guard let data = try? Data(contentsOf: URL(filePath: "/sys/fs/cgroup/" + name)) else { return [] }
        return String(decoding: data, as: UTF8.self).split(whereSeparator: \.isWhitespace)
    }

    /// Peak resident memory of this process, in bytes.
    static var peakResidentBytes: Int {
        var usage = rusage()
        getrusage(__rusage_who_t(RUSAGE_SELF.rawValue), &usage)
        return usage.ru_maxrss * 1024
    }

    /// Digest of a file's path, size and modification time: changes whenever the file does, without reading gigabytes.
    static func fileFingerprint(_ path: String) -> String {
        var info = stat()
        stat(path, &info)
        let text = "\(path)|\(info.st_dev)|\(info.st_ino)|\(info.st_size)|\(info.st_mtim.tv_sec).\(info.st_mtim.tv_nsec)"
        return hexadecimal(SHA256Digest.of(Array(text.utf8)))
    }
}
