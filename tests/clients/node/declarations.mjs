// Reads the SDK's type declarations: what each operation takes and what it answers.
//
// At run time the types are gone, so an axios client "succeeds" with any answer at all. The declarations
// that MX ships beside the code say what a caller may rely on, and this makes them available to the driver.

import { readFileSync } from "node:fs";

// Returns { operations: Map(name -> { owner, parameters: [{ name, optional, type }], answer }), fieldsOf(type), valuesOf(type) }.
export function readDeclarations(parser, file) {
  const program = parser.parse(readFileSync(file, "utf8"), { sourceType: "module", plugins: [["typescript", { dts: true }]] });
  const interfaces = new Map();
  const enumerations = new Map();
  const operations = new Map();
  for (const { declaration } of program.program.body) {
    if (declaration?.type === "TSInterfaceDeclaration") {
      interfaces.set(declaration.id.name, declaration.body.body.map(field));
    } else if (declaration?.type === "VariableDeclaration") {
      const [{ id }] = declaration.declarations;
      const members = id.typeAnnotation?.typeAnnotation.members ?? [];
      const values = members.map((member) => member.typeAnnotation?.typeAnnotation.literal?.value);
      if (values.length > 0 && values.every((value) => typeof value === "string")) enumerations.set(id.name, values);
    } else if (declaration?.type === "ClassDeclaration" && declaration.id.name.endsWith("Api")) {
      for (const method of declaration.body.body.filter((member) => member.type === "TSDeclareMethod")) {
        operations.set(method.key.name, operation(declaration.id.name, method));
      }
    }
  }
  return { operations, fieldsOf: (name) => interfaces.get(name), valuesOf: (name) => enumerations.get(name) };
}

function operation(owner, method) {
  const parameters = method.params.map((parameter) => ({
    name: parameter.name,
    optional: Boolean(parameter.optional),
    type: typeOf(parameter.typeAnnotation.typeAnnotation),
  }));
  // Promise<AxiosResponse<ANSWER, any, {}>>
  const response = method.returnType.typeAnnotation.typeParameters.params[0];
  return { owner, parameters: parameters.slice(0, -1), answer: typeOf(response.typeParameters.params[0]) };
}

function field(member) {
  return {
    name: member.key.value ?? member.key.name,
    optional: Boolean(member.optional),
    type: typeOf(member.typeAnnotation.typeAnnotation),
  };
}

// { kind: "string" | "number" | "boolean" | "void" | "any" | "named" | "list", name?, item? }; of a union, the part that is not null.
function typeOf(node) {
  switch (node.type) {
    case "TSUnionType":
      return typeOf(node.types.find((part) => part.type !== "TSNullKeyword" && part.type !== "TSUndefinedKeyword"));
    case "TSArrayType":
      return { kind: "list", item: typeOf(node.elementType) };
    case "TSTypeReference":
      if (node.typeName.name === "Array") return { kind: "list", item: typeOf(node.typeParameters.params[0]) };
      return { kind: "named", name: node.typeName.name };
    case "TSParenthesizedType":
      return typeOf(node.typeAnnotation);
    default:
      return { kind: node.type.replace(/^TS|Keyword$/g, "").toLowerCase() };
  }
}
