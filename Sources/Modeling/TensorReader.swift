import GGUF
import Kernels

#if canImport(Glibc)
import Glibc
#endif

func power(_ base: Float, _ exponent: Float) -> Float { powf(base, exponent) }

/// Reads tensors by name with `pread` (a mapped file that is truncated later would kill the process), checks shapes, packs matrices.
struct TensorReader {
    let file: GGUFFile
    let pool: ComputePool
    private let seen = Seen()

    private final class Seen {
        var names: Set<String> = []
    }

    init(file: GGUFFile, pool: ComputePool) {
        self.file = file
        self.pool = pool
    }

    func matrix(_ name: String, rows: Int, columns: Int) throws(ModelingError) -> WeightMatrix {
        guard let matrix = try matrixIfPresent(name, rows: rows, columns: columns) else { throw missing(name, [columns, rows]) }
        return matrix
    }

    func matrixIfPresent(_ name: String, rows: Int, columns: Int) throws(ModelingError) -> WeightMatrix? {
        guard let tensor = try tensor(name, dimensions: [columns, rows]) else { return nil }
        do {
            let bytes = try file.bytes(of: tensor)
            return try bytes.withUnsafeBytes { source throws(KernelError) in
                try WeightMatrix(type: tensor.type, rows: rows, columns: columns, source: source.baseAddress!, pool: pool)
            }
        } catch let error as GGUFError {
            throw ModelingError(.unreadable, error.message)
        } catch {
            throw ModelingError(.outOfMemory, "tensor '\(name)': \(error)")
        }
    }

    func vector(_ name: String, count: Int) throws(ModelingError) -> FloatVector {
        guard let vector = try vectorIfPresent(name, count: count) else { throw missing(name, [count]) }
        return vector
    }

    func vectorIfPresent(_ name: String, count: Int) throws(ModelingError) -> FloatVector? {
        guard let tensor = try tensor(name, dimensions: [count]) else { return nil }
        guard tensor.type == .f32 || tensor.type == .f16 || tensor.type == .bf16 else {
            throw ModelingError(.wrongShape, "tensor '\(name)': found type \(tensor.type.name), expected F32, F16 or BF16 for a vector")
        }
        // A vector is a matrix of one row: the same conversion serves both.
        guard let matrix = try oneRow(tensor, count) else { throw missing(name, [count]) }
        var values = [Float](repeating: 0, count: count)
        values.withUnsafeMutableBufferPointer { matrix.copyRow(0, to: $0.baseAddress!) }
        guard values.allSatisfy(\.isFinite) else {
            throw ModelingError(.unreadable, "tensor '\(name)': found a value that is not finite; the file is damaged")
        }
        return FloatVector(values)
    }

    private func oneRow(_ tensor: GGUFTensor, _ count: Int) throws(ModelingError) -> WeightMatrix? {
        do {
            let bytes = try file.bytes(of: tensor)
            return try bytes.withUnsafeBytes { source throws(KernelError) in
                try WeightMatrix(type: tensor.type, rows: 1, columns: count, source: source.baseAddress!, pool: pool)
            }
        } catch {
            throw ModelingError(.unreadable, "\(error)")
        }
    }

    private func tensor(_ name: String, dimensions: [Int]) throws(ModelingError) -> GGUFTensor? {
        guard let tensor = file.tensor(named: name) else { return nil }
        seen.names.insert(name)
        var found = tensor.dimensions
        while found.count > dimensions.count, found.last == 1 { found.removeLast() }
        guard found == dimensions else {
            throw ModelingError(.wrongShape, "tensor '\(name)': found shape \(tensor.dimensions), expected \(dimensions) from the file's own metadata")
        }
        return tensor
    }

    private func missing(_ name: String, _ dimensions: [Int]) -> ModelingError {
        ModelingError(.missingTensor, "tensor '\(name)': absent, expected shape \(dimensions); the file is incomplete or not of the architecture it names")
    }

    /// A weight that would be ignored means answers that are quietly wrong.
    func refuseUnknownTensors() throws(ModelingError) {
        if let unknown = file.tensors.first(where: { !seen.names.contains($0.name) && $0.name != "rope_freqs.weight" }) {
            throw ModelingError(.unsupportedArchitecture, "tensor '\(unknown.name)': this architecture has no use for it, so its effect would be lost; the model is of a variant that Graft does not support")
        }
    }
}
