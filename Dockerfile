# docker build -t spectrain . && docker run --rm --gpus all -v "$PWD/runs:/work/runs" spectrain optimizer=adam
FROM python:3.11-slim-bookworm
WORKDIR /src
COPY requirements.txt pyproject.toml setup.py README.md LICENSE MANIFEST.in ./
RUN pip install --no-cache-dir -r requirements.txt
COPY conf conf
COPY src src
RUN pip install --no-cache-dir --no-deps . && useradd --create-home --uid 1000 spectrain && install -d -o spectrain /work
USER 1000
WORKDIR /work
ENTRYPOINT ["spectrain-train"]
