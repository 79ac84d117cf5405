// Loads a SavedModel with the loader of TensorFlow Serving and answers the requests of a file.
//
//     loader VERSION_FOLDER REQUESTS ANSWERS REPEATS
//     loader --version
//
// Both files are little-endian and made of numbers (8 bytes) and texts (their length as a number,
// then their bytes).
//   REQUESTS: number of requests; per request: signature, number of inputs, per input a serialized
//             NamedTensorProto with the input's key as its name.
//   ANSWERS:  seconds of loading (a double); per request: number of outputs, per output a
//             NamedTensorProto; milliseconds of each of the REPEATS timed runs (doubles).
// Exit codes: 0; 10 when the model cannot be loaded, 11 when a request fails, 12 for anything else,
// each with one message on stderr.

#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <exception>
#include <fstream>
#include <iostream>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "tensorflow/c/c_api.h"
#include "tensorflow/cc/saved_model/loader.h"
#include "tensorflow/core/framework/tensor.h"
#include "tensorflow/core/protobuf/named_tensor.pb.h"
#include "tensorflow/core/public/session.h"

namespace {

constexpr int kNotLoaded = 10;
constexpr int kFailedRequest = 11;
constexpr int kOther = 12;

using Clock = std::chrono::steady_clock;

double SecondsSince(Clock::time_point began) {
  return std::chrono::duration<double>(Clock::now() - began).count();
}

template <typename T>
T Read(std::ifstream& file) {
  T value;
  if (!file.read(reinterpret_cast<char*>(&value), sizeof(value))) {
    throw std::runtime_error("the file of requests ends too early");
  }
  return value;
}

std::string ReadText(std::ifstream& file) {
  std::string text(Read<uint64_t>(file), '\0');
  if (!file.read(text.data(), static_cast<std::streamsize>(text.size()))) {
    throw std::runtime_error("the file of requests ends too early");
  }
  return text;
}

template <typename T>
void Write(std::ofstream& file, T value) {
  file.write(reinterpret_cast<const char*>(&value), sizeof(value));
}

void WriteText(std::ofstream& file, const std::string& text) {
  Write<uint64_t>(file, text.size());
  file.write(text.data(), static_cast<std::streamsize>(text.size()));
}

// A request that the model does not answer.
struct FailedRequest : std::runtime_error {
  using std::runtime_error::runtime_error;
};

void Answer(const tensorflow::SavedModelBundle& bundle, std::ifstream& requests,
            std::ofstream& answers, int repeats) {
  const std::string signature = ReadText(requests);
  const auto found = bundle.GetSignatures().find(signature);
  if (found == bundle.GetSignatures().end()) {
    throw FailedRequest("there is no signature '" + signature + "'");
  }
  const tensorflow::SignatureDef& definition = found->second;

  std::vector<std::pair<std::string, tensorflow::Tensor>> inputs;
  const auto count = Read<uint64_t>(requests);
  for (uint64_t i = 0; i < count; ++i) {
    tensorflow::NamedTensorProto held;
    tensorflow::Tensor tensor;
    if (!held.ParseFromString(ReadText(requests)) || !tensor.FromProto(held.tensor())) {
      throw std::runtime_error("an input of '" + signature + "' is no tensor");
    }
    const auto input = definition.inputs().find(held.name());
    if (input == definition.inputs().end()) {
      throw FailedRequest("'" + signature + "' has no input '" + held.name() + "'");
    }
    inputs.emplace_back(input->second.name(), tensor);
  }
  std::vector<std::string> keys;
  std::vector<std::string> names;
  for (const auto& [key, info] : definition.outputs()) {
    keys.push_back(key);
    names.push_back(info.name());
  }

  std::vector<tensorflow::Tensor> outputs;
  std::vector<double> milliseconds;
  for (int run = 0; run <= repeats; ++run) {  // the first run is not timed: it prepares the graph
    outputs.clear();
    const auto began = Clock::now();
    const auto status = bundle.GetSession()->Run(inputs, names, {}, &outputs);
    if (run > 0) milliseconds.push_back(1000 * SecondsSince(began));
    if (!status.ok()) {
      throw FailedRequest("'" + signature + "' fails: " + std::string(status.message()));
    }
  }
  Write<uint64_t>(answers, outputs.size());
  for (size_t i = 0; i < outputs.size(); ++i) {
    tensorflow::NamedTensorProto held;
    held.set_name(keys[i]);
    if (outputs[i].dtype() == tensorflow::DT_STRING) {
      outputs[i].AsProtoField(held.mutable_tensor());  // texts as bytes would be for C++ alone
    } else {
      outputs[i].AsProtoTensorContent(held.mutable_tensor());
    }
    WriteText(answers, held.SerializeAsString());
  }
  for (const double value : milliseconds) Write<double>(answers, value);
}

int Run(const std::string& folder, const char* requests_file, const char* answers_file,
        int repeats) {
  std::ifstream requests(requests_file, std::ios::binary);
  std::ofstream answers(answers_file, std::ios::binary);
  tensorflow::SavedModelBundle bundle;
  const auto began = Clock::now();
  const auto status = tensorflow::LoadSavedModel(tensorflow::SessionOptions(),
                                                 tensorflow::RunOptions(), folder, {"serve"},
                                                 &bundle);
  if (!status.ok()) {
    std::cerr << status.message() << std::endl;
    return kNotLoaded;
  }
  Write<double>(answers, SecondsSince(began));
  const auto count = Read<uint64_t>(requests);
  for (uint64_t i = 0; i < count; ++i) Answer(bundle, requests, answers, repeats);
  answers.close();
  if (!answers) throw std::runtime_error("the answers cannot be written");
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc == 2 && std::string(argv[1]) == "--version") {
    std::cout << TF_Version() << std::endl;
    return 0;
  }
  if (argc != 5) {
    std::cerr << "usage: loader VERSION_FOLDER REQUESTS ANSWERS REPEATS" << std::endl;
    return kOther;
  }
  try {
    return Run(argv[1], argv[2], argv[3], std::atoi(argv[4]));
  } catch (const FailedRequest& error) {
    std::cerr << error.what() << std::endl;
    return kFailedRequest;
  } catch (const std::exception& error) {
    std::cerr << error.what() << std::endl;
    return kOther;
  }
}
