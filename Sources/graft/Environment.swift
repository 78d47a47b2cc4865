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

    static var memoryBytes: Int { sysconf(Int32(_SC_PHYS_PAGES)) * sysconf(Int32(_SC_PAGESIZE)) }

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
