import FoundationEssentials
import GGUF
import Kernels
import Modeling
import TestSupport
import Training

/// A model of the tests, and trainers on it.
struct TrainingFixture {
    let model: LanguageModel
    let pool: ComputePool

    init(path: String, threads: Int = 2) throws {
        pool = try ComputePool(threads: threads)
        model = try LanguageModel(file: GGUFFile(path: path), pool: pool)
    }

    init(tiny name: String, threads: Int = 2) throws {
        try self.init(path: goldenFolder.appending(path: "tiny/\(name).gguf").path, threads: threads)
    }

    func trainer(bfloat16: TrainingCompute.BFloat16Unit = .tiles) throws -> Trainer {
        Trainer(model: model, variant: try KernelVariant(), pool: pool, bfloat16: bfloat16)
    }
}

/// cos of the angle between two lists of numbers.
func cosine(_ a: [Float], _ b: [Float]) -> Double {
    var product = 0.0, first = 0.0, second = 0.0
    for (x, y) in zip(a, b) {
        product += Double(x) * Double(y)
        first += Double(x) * Double(x)
        second += Double(y) * Double(y)
    }
    return product / (first * second).squareRoot()
}

func norm(_ a: [Float]) -> Double { a.reduce(0.0) { $0 + Double($1) * Double($1) }.squareRoot() }
