import CKernels

/// One instruction set's kernels. All variants give equal results, bit for bit, on the same input.
public struct KernelVariant: Sendable, CustomStringConvertible {
    // The table is a constant of the C target.
    nonisolated(unsafe) package let table: UnsafePointer<graft_kernels>

    /// `avx512`, `avx2vnni`, `avx2` or `generic`.
    public var name: String { String(cString: table.pointee.name) }
    public var description: String { name }

    /// What this machine can run, best first; the last one is always `generic`.
    public static var available: [KernelVariant] {
        var variants: [KernelVariant] = []
        while let table = graft_kernels_available(Int32(variants.count)) { variants.append(KernelVariant(table: table)) }
        return variants
    }

    /// The best variant, or the one that `name` (the value of `GRAFT_ISA`) forces.
    public init(forced name: String? = nil) throws(KernelError) {
        guard let table = graft_kernels_select(name) else {
            throw KernelError(
                .unknownVariant,
                "GRAFT_ISA: found '\(name ?? "")', expected one of \(KernelVariant.available.map(\.name).joined(separator: ", ")) on this machine; unset it to use the best one")
        }
        self.table = table
    }

    private init(table: UnsafePointer<graft_kernels>) {
        self.table = table
    }
}

public struct KernelError: Error, Sendable, CustomStringConvertible {
    public enum Code: Sendable, Equatable { case unknownVariant, unsupportedShape, outOfMemory, threadFailure }

    public let code: Code
    public let message: String

    public init(_ code: Code, _ message: String) {
        self.code = code
        self.message = message
    }

    public var description: String { message }
}
