import Adapters
import FoundationEssentials
import GGUF
import Kernels
import TestSupport

/// What an adapter's weights are read by, where the input is only weights.
private let config = Array(
    #"{"peft_type":"LORA","r":4,"lora_alpha":8,"target_modules":["q_proj","v_proj","down_proj"],"base_model_name_or_path":"b","bias":"none"}"#.utf8)

/// The weights where the input is only a configuration.
private let weights = required("the golden Llama adapter") {
    Array(try Data(contentsOf: goldenFolder.appending(path: "adapters/llama/adapter_model.safetensors")))
}

/// Promises: the tensors of what parses cover the data, each byte once; what the writer makes of them reads back to the same values. As an adapter,
/// alone and with a configuration, the file is read or refused; numbers of an accepted adapter are finite.
func fuzzSafetensors(_ input: [UInt8]) throws(FuzzFinding) {
    let file: SafetensorsFile?
    do throws(SafetensorsError) {
        file = try SafetensorsFile(parsing: input)
    } catch {
        file = nil
        try promise(!error.message.isEmpty && error.message.utf8.count < 2000, "a message of \(error.message.utf8.count) bytes")
    }
    if let file {
        try checkCover(of: file, input)
        try checkWriting(of: file, input)
    }
    try checkAdapter([ExportedAdapter.File(name: "upload", bytes: input)])
    if input.first == UInt8(ascii: "{") {
        try checkAdapter([ExportedAdapter.File(name: "config", bytes: input), ExportedAdapter.File(name: "weights", bytes: weights)])
    } else {
        try checkAdapter([ExportedAdapter.File(name: "config", bytes: config), ExportedAdapter.File(name: "weights", bytes: input)])
    }
}

private func checkCover(of file: SafetensorsFile, _ input: [UInt8]) throws(FuzzFinding) {
    var end = file.tensors.first?.range.lowerBound ?? input.count
    for tensor in file.tensors {
        try promise(tensor.range.lowerBound == end, "tensor \(tensor.name) begins at \(tensor.range.lowerBound), the one before ends at \(end)")
        let bits = tensor.shape.reduce(tensor.type.bits, *)
        try promise(tensor.range.count * 8 == bits, "tensor \(tensor.name) of \(tensor.shape) has \(tensor.range.count) bytes")
        end = tensor.range.upperBound
    }
    try promise(end == input.count, "the tensors end at \(end), the file at \(input.count)")
}

private func checkWriting(of file: SafetensorsFile, _ input: [UInt8]) throws(FuzzFinding) {
    let types: [SafetensorsFile.ElementType: GGMLType] = [.f32: .f32, .f16: .f16, .bf16: .bf16]
    let tensors = file.tensors.compactMap { tensor in
        types[tensor.type].map { type in
            SafetensorsWriter.Tensor(name: tensor.name, type: type, shape: tensor.shape, values: TensorValues.decode(input, at: tensor.range, as: type))
        }
    }
    let written = SafetensorsWriter.bytes(of: tensors, metadata: file.metadata)
    let again: SafetensorsFile
    do throws(SafetensorsError) {
        again = try SafetensorsFile(parsing: written)
    } catch {
        throw FuzzFinding("what is written is refused: \(error.message)")
    }
    try promise(again.metadata == file.metadata && again.tensors.count == tensors.count, "what is written has other tensors")
    for tensor in again.tensors {
        guard let type = types[tensor.type], let original = tensors.first(where: { $0.name == tensor.name && $0.type == type && $0.shape == tensor.shape })
        else { throw FuzzFinding("what is written has a tensor \(tensor.name) that was not there") }
        let values = TensorValues.decode(written, at: tensor.range, as: type)
        try promise(
            zip(values, original.values).allSatisfy { $0.bitPattern == $1.bitPattern || $0.isNaN && $1.isNaN }, "tensor \(tensor.name) has other values")
    }
}

private func checkAdapter(_ files: [ExportedAdapter.File]) throws(FuzzFinding) {
    let content: AdapterContent
    do throws(AdapterError) {
        content = try AdapterContent.read(files, base: adapterBase).content
    } catch {
        return try promise(!error.message.isEmpty && error.message.utf8.count < 2000, "a message of \(error.message.utf8.count) bytes")
    }
    try promise(!content.pairs.isEmpty, "an adapter without matrices")
    for pair in content.pairs {
        try promise(pair.rank > 0 && pair.rank <= 1024, "rank \(pair.rank)")
        try promise(TensorValues.firstNonFinite(in: pair.a) == nil && TensorValues.firstNonFinite(in: pair.b) == nil, "a number that is not finite")
    }
}
